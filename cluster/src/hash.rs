//! The numbers by which nodes and items find each other. Integers alone: every machine comes to the same.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

/// The key under which names are hashed. Every node has to use the same: it never changes.
const KEY: (u64, u64) = (0x7469_6469_6e67_7320, 0x6e6f_6465_2068_6173);

/// The fractional bits of a [`cost`].
const FRACTION: u32 = 40;

/// How finely the logarithm is tabulated: 2 to the power of this many steps.
const STEPS: u32 = 12;

/// What a name is hashed to: SipHash-2-4 of its bytes under a fixed key.
pub(crate) fn seed(name: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(KEY.0, KEY.1);
    hasher.write(name);
    hasher.finish()
}

/// How well an item and a name fit, evenly distributed: the output number `item` of SplitMix64 when it starts from the name's seed.
pub(crate) const fn score(seed: u64, item: u32) -> u64 {
    let mut x = seed.wrapping_add((item as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Minus the logarithm of a score as a fraction of all scores, to base 2, with 40 fractional bits.
///
/// Of several names, each with its own weight, the one with the least cost divided by its weight is chosen as often as its weight
/// says. The logarithm is linear between 4,096 tabulated values, so that it takes integers alone; it never grows with the score, and
/// is at least 1.
pub(crate) fn cost(score: u64) -> u64 {
    let score = score.max(1);
    let leading = score.leading_zeros();
    let whole = u64::from(63 - leading) << FRACTION;
    // The fraction behind the highest bit: first the step, then 32 bits of the way to the next.
    let behind = (score << leading) << 1;
    let step = usize::try_from(behind >> (64 - STEPS)).expect("as many as there are steps");
    let way = (behind << STEPS) >> 32;
    let (from, to) = (LOGARITHMS[step], LOGARITHMS[step + 1]);
    (64 << FRACTION) - whole - (from + (((to - from) * way) >> 32))
}

/// The logarithm of 1 + step / 4,096 to base 2, with 40 fractional bits, rounded down.
static LOGARITHMS: [u64; (1 << STEPS) + 1] = logarithms();

const fn logarithms() -> [u64; (1 << STEPS) + 1] {
    let mut table = [0; (1 << STEPS) + 1];
    let mut step = 0;
    while step < 1 << STEPS {
        // With 62 fractional bits. Squaring doubles the logarithm: when the square reaches 2, its next bit is 1.
        let mut x = ((1 << STEPS) + step as u128) << (62 - STEPS);
        let mut bit = FRACTION;
        while bit > 0 {
            bit -= 1;
            x = (x * x) >> 62;
            if x >= 2 << 62 {
                x >>= 1;
                table[step] |= 1 << bit;
            }
        }
        step += 1;
    }
    table[1 << STEPS] = 1 << FRACTION;
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_vectors() {
        let seed = seed(b"edge-0");
        assert_eq!(seed, 13_542_226_944_650_598_708);
        assert_eq!(
            [0, 1, 1023].map(|item| score(seed, item)),
            [
                7_311_125_322_918_364_133,
                15_302_843_868_497_472_479,
                11_040_497_949_785_421_434
            ]
        );
        assert_eq!(
            [0, 1, 1 << 32, 3 << 62, u64::MAX].map(cost),
            [64 << 40, 64 << 40, 32 << 40, 456338556421, 1]
        );
    }

    #[test]
    fn the_cost_is_the_logarithm() {
        for n in 0..100_000 {
            let score = score(7, n);
            #[expect(clippy::cast_precision_loss, reason = "compared within bounds")]
            let (exact, cost) = (64.0 - (score as f64).log2(), cost(score) as f64 / f64::from(2).powi(40));
            assert!((exact - cost).abs() < 2e-8, "{score}: {cost} instead of {exact}");
        }
    }

    #[test]
    fn a_better_score_never_costs_more() {
        let mut scores: Vec<_> = (0..100_000).map(|n| score(7, n)).collect();
        scores.extend((0..=64).map(|bits| u64::MAX.checked_shr(bits).unwrap_or_default()));
        scores.extend((0..1_000).flat_map(|n| [n, u64::MAX - n]));
        scores.sort_unstable();
        assert!(scores.windows(2).all(|pair| cost(pair[0]) >= cost(pair[1])));
        assert!(cost(u64::MAX) >= 1);
    }
}
