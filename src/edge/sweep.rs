//! Going through a table in slices: after a revocation every stream is looked at, but not all of them in one step.
//!
//! Pure. One that is asked to go round again while it is at it goes on from where it is: however often it is asked, each time everything is
//! passed once more within a round.

/// Into how many slices a round is cut: with one slice a tick, it takes half a second.
const SLICES: usize = 10;

/// A slice has at least so many places: going through fewer is not worth the wait.
const LEAST: usize = 512;

/// Where it is.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    at: usize,
    left: usize,
    /// How large the table was.
    places: usize,
}

impl Sweep {
    /// Everything that is in a table of so many places now is to be passed once.
    pub(super) fn begin(&mut self, places: usize) {
        self.places = places;
        self.left = places;
    }

    /// The places of the next slice. The table may have grown since, but not shrunk.
    pub(super) fn slice(&mut self, places: usize) -> impl Iterator<Item = usize> + use<> {
        if self.left > 0 {
            // What has grown lies between here and the beginning, to which it still has to come.
            self.left += places - self.places.min(places);
        }
        self.places = places;
        let count = places.div_ceil(SLICES).max(LEAST).min(self.left).min(places);
        let first = self.at;
        self.left -= count;
        if places > 0 {
            self.at = (first + count) % places;
        }
        (first..first + count).map(move |place| place % places)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn round(sweep: &mut Sweep, places: usize) -> Vec<usize> {
        (0..SLICES)
            .flat_map(|_| sweep.slice(places).collect::<Vec<_>>())
            .collect()
    }

    #[test]
    fn a_round_passes_each_place_once_and_then_rests() {
        for places in [0, 1, 511, 512, 513, 100_000] {
            let mut sweep = Sweep::default();
            assert_eq!(sweep.slice(places).count(), 0, "nothing was asked");
            for _ in 0..2 {
                sweep.begin(places);
                assert_eq!(round(&mut sweep, places), (0..places).collect::<Vec<_>>());
                assert_eq!(round(&mut sweep, places), [0; 0]);
            }
        }
        let mut sweep = Sweep::default();
        sweep.begin(100_000);
        assert_eq!(sweep.slice(100_000).count(), 10_000);
    }

    proptest! {
        /// Whatever is asked meanwhile, and however the table grows: what was there is passed within a round.
        #[test]
        fn what_was_there_is_passed_within_a_round(
            steps in prop::collection::vec((any::<bool>(), 0_usize..1_500), 1..12),
        ) {
            let mut sweep = Sweep::default();
            let mut places = 0;
            let mut waiting: Vec<(usize, HashSet<usize>)> = Vec::new();
            for (tick, (ask, more)) in steps.into_iter().enumerate() {
                if ask {
                    sweep.begin(places);
                    waiting.push((tick, (0..places).collect()));
                }
                places += more;
                for place in sweep.slice(places) {
                    for (_, places) in &mut waiting {
                        places.remove(&place);
                    }
                }
                waiting.retain(|(_, places)| !places.is_empty());
            }
            // While a table grows a round grows with it: it ends once the table does not.
            for place in round(&mut sweep, places) {
                for (_, places) in &mut waiting {
                    places.remove(&place);
                }
            }
            prop_assert!(waiting.iter().all(|(_, places)| places.is_empty()));
        }
    }
}
