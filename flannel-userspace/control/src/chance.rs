//! All randomness of the control plane comes from here, so that a run can be repeated.

use std::cell::RefCell;
use std::ops::Range;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

thread_local! {
    static SOURCE: RefCell<StdRng> = RefCell::new(StdRng::from_rng(&mut rand::rng()));
}

/// Seeds this thread's random numbers.
pub fn seed(seed: u64) {
    SOURCE.set(StdRng::seed_from_u64(seed));
}

/// Dice of one's own.
#[must_use]
pub fn dice() -> StdRng {
    SOURCE.with_borrow_mut(StdRng::from_rng)
}

/// Any number.
#[must_use]
pub fn number() -> u64 {
    SOURCE.with_borrow_mut(StdRng::random)
}

/// A number of that range.
#[must_use]
pub fn between(range: Range<f64>) -> f64 {
    SOURCE.with_borrow_mut(|source| source.random_range(range))
}

#[cfg(test)]
mod tests {
    use super::{between, number, seed};

    #[test]
    fn one_seed_is_one_run() {
        let run = |start| {
            seed(start);
            (number(), between(0.0..1.0).to_bits(), number())
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }
}
