//! From arrays to kernels: sort the elements of a chunk by formula, then sweep each group.

use pulp::NullaryFnOnce;

use super::Function;
use super::edge::edge;
use super::jet::Partials;
use super::large::{self, EXTREME};
use super::{small_i, small_k};

/// Elements per chunk: enough to fill every group, and small enough for the first-level cache.
pub(crate) const CHUNK: usize = 2048;

/// Below this, buffers are small, which keeps single calls cheap.
pub(crate) const SHORT: usize = 32;

/// Elements per step of a sweep: two of the widest vectors.
const LANES: usize = 16;

/// Results of one step, in the order of [`Partials`]: f, v, x, vv, vx, xx.
pub(crate) type Tile = [[f64; LANES]; 6];

/// One formula at one element; inlined into vector code.
trait Kernel: Copy {
    /// How many derivatives it gives: see [`level`].
    const LEVEL: usize;

    fn at(self, v: f64, x: f64) -> Partials;
}

/// The level of detail that a list of derivatives asks for: 0 value; 1 value and d/dx; 2 also d/dv;
/// 3 all up to total order two.
pub(crate) fn level(derivatives: &[(u8, u8)]) -> usize {
    let one = |&(i, j): &(u8, u8)| match (i, j) {
        (0, 0) => 0,
        (0, 1) => 1,
        (1, 0) => 2,
        _ => 3,
    };
    derivatives.iter().map(one).max().unwrap_or(0)
}

/// A group of elements that share a formula: `at` are their places in `v` and `x`.
#[derive(Clone, Copy)]
struct Group<'a> {
    v: &'a [f64],
    x: &'a [f64],
    at: &'a [u16],
}

/// Receives the results of a step and the places they belong to.
type Sink<'a> = dyn FnMut(&[u16], &Tile) + 'a;

struct Sweep<'a, 'b, K> {
    kernel: K,
    group: Group<'a>,
    sink: &'a mut Sink<'b>,
}

impl<K: Kernel> NullaryFnOnce for Sweep<'_, '_, K> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Group { v, x, at } = self.group;
        for places in at.chunks(LANES) {
            // The last step repeats its first element: vector code knows no shorter step.
            let mut points = [[v[places[0] as usize]; LANES], [x[places[0] as usize]; LANES]];
            for (lane, &place) in places.iter().enumerate() {
                points[0][lane] = v[place as usize];
                points[1][lane] = x[place as usize];
            }
            let mut tile = [[0.0; LANES]; 6];
            for lane in 0..LANES {
                let p = self.kernel.at(points[0][lane], points[1][lane]);
                tile[0][lane] = p.f;
                if K::LEVEL >= 1 {
                    tile[2][lane] = p.x;
                }
                if K::LEVEL >= 2 {
                    tile[1][lane] = p.v;
                }
                if K::LEVEL >= 3 {
                    tile[3][lane] = p.vv;
                    tile[4][lane] = p.vx;
                    tile[5][lane] = p.xx;
                }
            }
            (self.sink)(places, &tile);
        }
    }
}

fn sweep<K: Kernel>(kernel: K, group: Group, sink: &mut Sink) {
    pulp::Arch::new().dispatch(Sweep { kernel, group, sink });
}

/// Declares kernels: a structure of run-time switches, and what it computes at (v, x).
macro_rules! kernels {
    ($($name:ident { $($field:ident: $type:ty),* } |$v:ident, $x:ident| $value:expr;)*) => {$(
        #[derive(Clone, Copy)]
        struct $name<const LEVEL: usize, const CLASS: usize> { $($field: $type),* }

        impl<const LEVEL: usize, const CLASS: usize> Kernel for $name<LEVEL, CLASS> {
            const LEVEL: usize = LEVEL;

            #[inline(always)]
            fn at(self, $v: f64, $x: f64) -> Partials {
                let Self { $($field),* } = self;
                $value
            }
        }
    )*};
}

/// What holds at -v, given the same at |v|, for a function even in v. (I comes with v >= 0.)
#[inline(always)]
fn even(v: f64, p: Partials) -> Partials {
    let sign = 1f64.copysign(v);
    Partials { v: sign * p.v, vx: sign * p.vx, ..p }
}

kernels! {
    LargeLog { sigma: f64 } |v, x| even(v, large::log_bessel::<LEVEL, CLASS, false>(sigma, v.abs(), x));
    LargeLogScaled { sigma: f64 } |v, x| even(v, large::log_bessel::<LEVEL, CLASS, true>(sigma, v.abs(), x));
    LargeRatio {} |v, x| large::ratio::<LEVEL, CLASS, false>(v, x);
    LargeComplement {} |v, x| large::ratio::<LEVEL, CLASS, true>(v, x);
    LargeHyp0f1 {} |b, z| large::reduced::<LEVEL, CLASS, false>(1.0, b, 2.0 * z.sqrt());
    LargeMatern {} |nu, x| large::reduced::<LEVEL, CLASS, false>(-1.0, nu, x);
    LowHyp0f1 {} |b, z| large::reduced::<LEVEL, CLASS, true>(1.0, b, 2.0 * z.sqrt());
    SmallLogI { shift: f64 } |v, x| {
        let p = small_i::log_i::<LEVEL, CLASS>(v, x);
        Partials { f: (-shift).mul_add(x, p.f), x: p.x - shift, ..p }
    };
    SmallLogK { shift: f64 } |v, x| {
        let p = even(v, small_k::log_kve::<LEVEL, CLASS>(v.abs(), x));
        Partials { f: (-shift).mul_add(x, p.f), x: p.x - shift, ..p }
    };
    SmallRatio {} |v, x| small_i::ratio::<LEVEL, CLASS>(v, x);
    SmallComplement {} |v, x| small_i::ratio_complement::<LEVEL, CLASS>(v, x);
    SmallHyp0f1 {} |b, z| small_i::log_hyp0f1::<LEVEL, CLASS>(b, z);
    SeriesHyp0f1 {} |b, z| {
        // Of the power series d2/dz2 would lose as many digits as b has.
        let xx = large::reduced::<LEVEL, EXTREME, false>(1.0, b, 2.0 * z.sqrt()).xx;
        Partials { xx, ..small_i::log_hyp0f1::<LEVEL, CLASS>(b, z) }
    };
    SmallMatern {} |nu, x| small_k::log_matern::<LEVEL, CLASS>(nu, x);
    LowMatern {} |nu, x| large::reduced::<LEVEL, CLASS, true>(-1.0, nu, x);
}

/// Sweeps with `$kernel::<LEVEL, CLASS>` for the run-time level and class, among those listed:
/// every pair is code of its own, three times over for the instruction sets. What is not listed is
/// served by the next, which does more than was asked for.
macro_rules! sweep_with {
    ($group:ident, $sink:ident, $kernel:ident $fields:tt, $level:expr, [$($l:literal)*], $class:expr, $classes:tt) => {
        match $level {
            $(level if level <= $l => sweep_with!(@ $group, $sink, $kernel $fields, $l, $class, $classes),)*
            _ => unreachable!("a level without a kernel"),
        }
    };
    (@ $group:ident, $sink:ident, $kernel:ident $fields:tt, $l:literal, $class:expr, [$($c:literal)*]) => {
        match $class {
            $(class if class <= $c => sweep::<$kernel<$l, $c>>($kernel $fields, $group, $sink),)*
            _ => unreachable!("a class without a kernel"),
        }
    };
}

/// The formulas, one a class: outside the domain; the bins of s of the expansion, the last one for
/// extreme arguments; the same at low order for the functions that contain Gamma; the power series
/// of 0F1 at large b; and the small region, whose own classes follow.
const EDGE: usize = 0;
const LARGE: usize = 1;
const LOW: usize = LARGE + EXTREME + 1;
const SERIES: usize = LOW + EXTREME + 1;
const SMALL: usize = SERIES + 1;
const CLASSES: usize = SMALL + 10;

/// z below which only the series makes log 0F1 relatively accurate, and its class there.
const SERIES_END: f64 = 1.0;

/// The first order at which Stirling's series serves, for the functions that contain Gamma.
const STIRLING: f64 = 8.0;

/// Which formula serves `function` at (v, x).
#[allow(clippy::needless_bitwise_bool)] // A lazy operator is a branch.
#[inline(always)]
fn classify(function: Function, v: f64, x: f64) -> u8 {
    use Function::{LogHyp0f1, LogKv, LogKve, LogMatern};
    let (order, argument) = match function {
        LogHyp0f1 => (v - 1.0, 2.0 * x.sqrt()),
        LogKv | LogKve => (v.abs(), x),
        _ => (v, x),
    };
    let reduced = matches!(function, LogHyp0f1 | LogMatern);
    let inside = if reduced { v > 0.0 } else { order >= 0.0 };
    // The formulas halve x: where nothing is left, the point counts as 0.
    let inside = inside & (0.5 * x > 0.0) & (order < f64::INFINITY) & (x < f64::INFINITY);
    let square = order * order + argument * argument;
    let low = reduced & (order < STIRLING);
    let bin: usize = large::BINS[1..].iter().map(|t| usize::from(square >= t * t)).sum();
    let extreme = (square > 1e300) | (argument < 1e-280);
    // At low order there are fewer bins: see `run`.
    let bin = if low { bin & !1 } else { bin };
    let bin = if extreme { EXTREME } else { bin } + if low { LOW } else { LARGE };
    let class = match function {
        LogKv | LogKve | LogMatern => small_k::class(order, argument),
        LogHyp0f1 => small_i::class_hyp0f1(v, x),
        _ => small_i::class(order, argument),
    };
    let bin = if matches!(function, LogHyp0f1) & (x < SERIES_END) { SERIES } else { bin };
    let class = if square < large::START * large::START { SMALL + class } else { bin };
    (if inside { class } else { EDGE }) as u8
}

/// The formula of every point.
struct Classify<'a> {
    function: Function,
    v: &'a [f64],
    x: &'a [f64],
    classes: &'a mut [u8],
}

impl NullaryFnOnce for Classify<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        use Function::{
            BesselRatio, BesselRatioComplement, LogHyp0f1, LogIv, LogIve, LogKv, LogKve, LogMatern,
        };
        let Self { function, v, x, classes } = self;
        macro_rules! classify_as {
            ($function:ident) => {
                for ((class, &v), &x) in classes.iter_mut().zip(v).zip(x) {
                    *class = classify($function, v, x);
                }
            };
        }
        // A loop for each function whose regions differ: a known function leaves no branches.
        match function {
            LogIv | LogIve | BesselRatio | BesselRatioComplement => classify_as!(LogIv),
            LogKv | LogKve => classify_as!(LogKv),
            LogHyp0f1 => classify_as!(LogHyp0f1),
            LogMatern => classify_as!(LogMatern),
        }
    }
}

fn run(function: Function, level: usize, class: usize, group: Group, sink: &mut Sink) {
    use Function::{
        BesselRatio, BesselRatioComplement, LogHyp0f1, LogIv, LogIve, LogKv, LogKve, LogMatern,
    };
    let scaled = matches!(function, LogIve | LogKve);
    let sigma = if matches!(function, LogKv | LogKve) { -1.0 } else { 1.0 };
    // What is rare may be slow, for the sake of less code: second derivatives take fewer classes,
    // d/dx comes with d/dv where that is almost free.
    macro_rules! large {
        ($kernel:ident $fields:tt, $levels:tt, $bin:expr, $bins:tt) => {
            match $bin {
                EXTREME => sweep_with!(group, sink, $kernel $fields, 3, [3], EXTREME, [4]),
                bin if level < 3 => {
                    sweep_with!(group, sink, $kernel $fields, level, $levels, bin, $bins);
                }
                // The bin below has terms enough.
                bin => sweep_with!(group, sink, $kernel $fields, 3, [3], bin & !1, [0 2]),
            }
        };
    }
    macro_rules! small {
        ($kernel:ident $fields:tt, $levels:tt, $classes:tt, $coarse_classes:tt) => {
            if level < 3 {
                sweep_with!(group, sink, $kernel $fields, level, $levels, class - SMALL, $classes);
            } else {
                sweep_with!(group, sink, $kernel $fields, 3, [3], class - SMALL, $coarse_classes);
            }
        };
    }
    match class {
        EDGE => {
            for &place in group.at {
                let i = place as usize;
                sink(&[place], &edge(function, group.v[i], group.x[i]).into_tile());
            }
        }
        LARGE..LOW => {
            let bin = class - LARGE;
            match function {
                LogIv | LogKv => large!(LargeLog { sigma }, [0 1 2], bin, [0 1 2 3]),
                LogIve | LogKve => large!(LargeLogScaled { sigma }, [0 1 2], bin, [0 1 2 3]),
                BesselRatio => large!(LargeRatio {}, [0 2], bin, [0 1 2 3]),
                BesselRatioComplement => large!(LargeComplement {}, [0 2], bin, [0 1 2 3]),
                LogHyp0f1 => large!(LargeHyp0f1 {}, [0 2], bin, [0 1 2 3]),
                LogMatern => large!(LargeMatern {}, [0 2], bin, [0 1 2 3]),
            }
        }
        LOW..SERIES => {
            let bin = class - LOW;
            match function {
                LogHyp0f1 => large!(LowHyp0f1 {}, [0 2], bin, [0 2]),
                _ => large!(LowMatern {}, [0 2], bin, [0 2]),
            }
        }
        SERIES => sweep_with!(group, sink, SeriesHyp0f1 {}, level, [0 3], 3, [3]),
        _ => {
            let shift = if scaled == (sigma > 0.0) { 1.0 } else { 0.0 };
            match function {
                LogIv | LogIve => small!(SmallLogI { shift }, [0 1 2], [0 1 2 3 4 5], [2 4 5]),
                LogKv | LogKve => {
                    small!(SmallLogK { shift }, [0 1 2], [0 1 2 3 4 5 6 7 8 9], [5 7 9]);
                }
                BesselRatio => small!(SmallRatio {}, [0 1 2], [0 1 2 3 4 5], [2 4 5]),
                BesselRatioComplement => {
                    small!(SmallComplement {}, [0 1 2], [0 1 2 3 4 5], [2 4 5]);
                }
                LogHyp0f1 => small!(SmallHyp0f1 {}, [0 1 2], [0 1 2 3 4 5], [2 4 5]),
                LogMatern => small!(SmallMatern {}, [0 2], [0 1 2 3 4 5 6 7 8 9], [5 7 9]),
            }
        }
    }
}

impl Partials {
    /// A tile with this point in its first lane.
    fn into_tile(self) -> Tile {
        [self.f, self.v, self.x, self.vv, self.vx, self.xx].map(|value| {
            let mut row = [0.0; LANES];
            row[0] = value;
            row
        })
    }
}

/// Evaluates `function` at the points (v, x), at most [`CHUNK`] of them, and hands the results to
/// `sink` in an order of its own.
pub(crate) fn evaluate_chunk(
    function: Function,
    level: usize,
    v: &[f64],
    x: &[f64],
    sink: &mut Sink,
) {
    if let (&[v0], &[x0]) = (v, x) {
        let class = classify(function, v0, x0) as usize;
        run(function, level, class, Group { v, x, at: &[0] }, sink);
    } else if v.len() <= SHORT {
        sort_and_run::<SHORT>(function, level, v, x, sink);
    } else {
        sort_and_run::<CHUNK>(function, level, v, x, sink);
    }
}

/// Counting sort by class. `N` bounds the number of points.
fn sort_and_run<const N: usize>(
    function: Function,
    level: usize,
    v: &[f64],
    x: &[f64],
    sink: &mut Sink,
) {
    let mut classes = [0u8; N];
    let classes = &mut classes[..v.len()];
    pulp::Arch::new().dispatch(Classify { function, v, x, classes });
    let mut places = [0u16; N];
    let first = classes[0];
    if classes.iter().fold(0, |other, &class| other | (class ^ first)) == 0 {
        let places = &mut places[..v.len()];
        places.iter_mut().zip(0..).for_each(|(place, i)| *place = i);
        run(function, level, first as usize, Group { v, x, at: places }, sink);
        return;
    }
    let mut ends = [0u16; CLASSES];
    for &class in &*classes {
        ends[class as usize] += 1;
    }
    let mut total = 0;
    for end in &mut ends {
        let count = *end;
        *end = total;
        total += count;
    }
    for (i, &class) in classes.iter().enumerate() {
        let end = &mut ends[class as usize];
        places[*end as usize] = i as u16;
        *end += 1;
    }
    let mut start = 0;
    for (class, &end) in ends.iter().enumerate() {
        if end > start {
            let at = &places[start as usize..end as usize];
            run(function, level, class, Group { v, x, at }, sink);
            start = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector code of a kernel against the same function called for one element, where a fused
    /// multiply-add is a library call: the bits of an instruction set without it.
    fn compare<K: Kernel>(kernel: K, v: &[f64], x: &[f64]) {
        let at: Vec<u16> = (0..v.len() as u16).collect();
        let mut seen = 0;
        sweep(kernel, Group { v, x, at: &at }, &mut |places, tile| {
            for (lane, &place) in places.iter().enumerate() {
                let alone = kernel.at(v[place as usize], x[place as usize]).into_tile();
                assert!(tile.iter().zip(&alone).all(|(a, b)| a[lane].to_bits() == b[0].to_bits()));
                seen += 1;
            }
        });
        assert_eq!(seen, v.len());
    }

    #[test]
    fn the_bits_do_not_depend_on_the_instruction_set() {
        let n = 53;
        let along = |low: f64, high: f64| -> Vec<f64> {
            (0..n).map(|i| low + (high - low) * ((f64::from(i) * 0.618).fract())).collect()
        };
        let (v, x) = (along(0.0, 25.0), along(31.0, 23.0));
        compare(LargeLog::<1, 0> { sigma: -1.0 }, &v, &x);
        compare(LargeLog::<3, 0> { sigma: -1.0 }, &v, &x);
        compare(LargeLogScaled::<3, EXTREME> { sigma: 1.0 }, &v, &x);
        compare(LargeComplement::<3, 0> {}, &v, &x);
        compare(LargeMatern::<3, 0> {}, &along(8.0, 25.0), &x);
        compare(LowHyp0f1::<3, 0> {}, &along(0.1, 8.9), &along(200.0, 300.0));
        let (v, x) = (along(0.0, 18.0), along(4.0, 11.0));
        compare(SmallLogI::<3, 4> { shift: 1.0 }, &v, &x);
        compare(SmallComplement::<3, 4> {}, &v, &x);
        compare(SmallHyp0f1::<3, 4> {}, &along(0.1, 10.0), &along(4.5, 30.0));
        let class = small_k::class(2.0, 4.0);
        assert_eq!(class, 9);
        compare(SmallLogK::<3, 9> { shift: 1.0 }, &along(1.5, 18.0), &x);
        compare(SmallMatern::<3, 5> {}, &along(1.5, 18.0), &along(1e-4, 0.7));
    }
}
