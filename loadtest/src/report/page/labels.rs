//! Labels that are next to what they name, and not upon each other.

/// Moves places apart so that they are at least so far from each other, and from the ends, as little as that takes. They keep their order.
pub(super) fn apart(places: &[f64], distance: f64, low: f64, high: f64) -> Vec<f64> {
    let mut order: Vec<_> = (0..places.len()).collect();
    // Of two at one place the later is above: it tends to be that of the higher line.
    order.sort_by(|&a, &b| places[a].total_cmp(&places[b]).then(b.cmp(&a)));
    // Those that touch are one block, around the middle of where its labels would like to be.
    let mut blocks: Vec<(f64, usize)> = Vec::new();
    let extent = |count: usize| distance * (count - 1) as f64;
    let clamp = |middle: f64, count: usize| {
        let half = extent(count) / 2.0;
        middle.min(high - half).max(low + half)
    };
    for &place in &order {
        let (mut middle, mut count) = (clamp(places[place], 1), 1);
        while let Some(&(before, size)) = blocks.last() {
            if before + extent(size) / 2.0 + distance <= middle - extent(count) / 2.0 {
                break;
            }
            blocks.pop();
            let both = count + size;
            // The block's labels are in a row: each block's middle is the mean of theirs.
            middle = (before * size as f64 + middle * count as f64) / both as f64;
            count = both;
            middle = clamp(middle, count);
        }
        blocks.push((middle, count));
    }
    let mut moved = vec![0.0; places.len()];
    let mut order = order.into_iter();
    for (middle, count) in blocks {
        let first = middle - extent(count) / 2.0;
        for (row, place) in order.by_ref().take(count).enumerate() {
            moved[place] = first + distance * row as f64;
        }
    }
    moved
}

/// Puts texts that begin at places into as few rows as it takes for none to be upon another; texts are told by where they begin and end.
pub(super) fn rows(texts: &[(f64, f64)]) -> Vec<usize> {
    let mut ends: Vec<f64> = Vec::new();
    let row = |&(begin, end): &(f64, f64)| {
        let free = ends.iter().position(|&taken| taken <= begin).unwrap_or(ends.len());
        match ends.get_mut(free) {
            Some(taken) => *taken = end,
            None => ends.push(end),
        }
        free
    };
    texts.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_their_distance_and_their_order() {
        assert_eq!(apart(&[10.0, 50.0], 12.0, 0.0, 100.0), [10.0, 50.0]);
        assert_eq!(apart(&[50.0, 50.0], 12.0, 0.0, 100.0), [56.0, 44.0]);
        assert_eq!(apart(&[99.0, 98.0, 97.0], 12.0, 0.0, 100.0), [100.0, 88.0, 76.0]);
        assert_eq!(apart(&[0.0, 1.0, 100.0], 12.0, 0.0, 100.0), [0.0, 12.0, 100.0]);
        assert_eq!(apart(&[], 12.0, 0.0, 100.0), Vec::<f64>::new());
    }

    #[test]
    fn texts_share_a_row_where_they_can() {
        assert_eq!(
            rows(&[(0.0, 30.0), (10.0, 40.0), (35.0, 60.0), (36.0, 50.0)]),
            [0, 1, 0, 2]
        );
    }
}
