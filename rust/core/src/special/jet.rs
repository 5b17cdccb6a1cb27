//! Truncated Taylor arithmetic in the order.
