//! Keyed random streams: the same key and stream index give the same numbers, in any order.
