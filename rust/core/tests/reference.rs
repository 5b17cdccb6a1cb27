//! Every function and derivative against certified values, within the bounds of
//! `tests/reference/bounds.csv`.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use ndarray::ArrayView1;
use pyprobe_core::Control;
use pyprobe_core::special::{Function, evaluate};

const FUNCTIONS: [(&str, Function); 8] = [
    ("log_iv", Function::LogIv),
    ("log_ive", Function::LogIve),
    ("log_kv", Function::LogKv),
    ("log_kve", Function::LogKve),
    ("bessel_ratio", Function::BesselRatio),
    ("bessel_ratio_complement", Function::BesselRatioComplement),
    ("log_hyp0f1", Function::LogHyp0f1),
    ("log_matern", Function::LogMatern),
];

#[test]
fn every_column_stays_within_its_bound() {
    let mut failures = Vec::new();
    for bound in lines("bounds") {
        let [column, table, tolerance, scale] = &bound[..] else { panic!("{bound:?}") };
        let (worst, v, x) = worst_error(column, table, scale);
        println!("{column:30} {worst:9.2e} at ({v:e}, {x:e}), bound {tolerance} {scale}");
        // NaN fails too.
        if !matches!(worst.partial_cmp(&tolerance.parse().unwrap()), Some(o) if o.is_le()) {
            failures.push(column.clone());
        }
    }
    assert!(failures.is_empty(), "out of bounds: {failures:?}");
}

/// The largest scaled error of one column, and where it stands.
fn worst_error(column: &str, table: &str, scale: &str) -> (f64, f64, f64) {
    let (name, digits) = column.rsplit_once('_').unwrap();
    let function = FUNCTIONS.iter().find(|(known, _)| *known == name).unwrap().1;
    let digits: Vec<u8> = digits.bytes().map(|digit| digit - b'0').collect();
    let columns = read(table);
    let (v, x, expected) = (&columns["0"], &columns["1"], &columns[column]);
    let got = evaluate(
        function,
        &[(digits[0], digits[1])],
        ArrayView1::from(v).into_dyn(),
        ArrayView1::from(x).into_dyn(),
        &Control::default(),
    )
    .unwrap();
    (got[0].iter().zip(expected).zip(v.iter().zip(x)))
        .map(|((got, y), (&v, &x))| {
            let size = match scale {
                "relative" => y.abs(),
                "one" => y.abs().max(1.0),
                "order" => y.abs().max(v).max(1.0),
                "order/x" => y.abs().max(v / x),
                "order/x^2" => y.abs().max(v / (x * x)),
                "1/s^2" => y.abs().max(v.hypot(x).powi(-2)),
                "hypot" => y.abs().max(v.hypot(x)),
                _ => panic!("unknown scale {scale}"),
            };
            let error = (got - y).abs();
            (if error > 0.0 { error / size } else { error }, v, x)
        })
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .unwrap()
}

/// The columns of a table by name; the two arguments are called "0" and "1".
fn read(table: &str) -> HashMap<String, Vec<f64>> {
    let header = text(table).lines().next().unwrap().to_owned();
    let rows: Vec<Vec<f64>> = lines(table)
        .iter()
        .map(|row| row.iter().map(|field| field.parse().unwrap()).collect())
        .collect();
    (header.split(',').enumerate())
        .map(|(i, name)| {
            let name = if i < 2 { i.to_string() } else { name.to_owned() };
            (name, rows.iter().map(|row| row[i]).collect())
        })
        .collect()
}

/// The fields of each line after the header.
fn lines(table: &str) -> Vec<Vec<String>> {
    text(table).lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

fn text(table: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference");
    fs::read_to_string(path.join(format!("{table}.csv"))).unwrap()
}
