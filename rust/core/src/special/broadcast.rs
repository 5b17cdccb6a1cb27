//! Broadcasting of the order against the argument, chunk by chunk.
