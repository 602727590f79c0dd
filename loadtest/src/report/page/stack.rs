//! Lines on top of each other.

use super::super::Plot;

/// The sum of all lines, at each point of the first: lines of a stack have the same points along.
pub(super) fn sums(plot: &Plot) -> Vec<f64> {
    layers(plot)
        .pop()
        .unwrap_or_default()
        .into_iter()
        .map(|(_, _, top)| top)
        .collect()
}

/// Of each line, in order: where along, from what, and up to what.
pub(super) fn layers(plot: &Plot) -> Vec<Vec<(f64, f64, f64)>> {
    let longest = plot
        .lines
        .iter()
        .map(|line| line.points.len())
        .max()
        .unwrap_or_default();
    let mut floor = vec![0.0; longest];
    let layers = plot.lines.iter().map(|line| {
        let points = line.points.iter().zip(&mut floor).map(|(&(along, value), floor)| {
            let bottom = *floor;
            *floor += value.max(0.0);
            (along, bottom, *floor)
        });
        points.collect()
    });
    layers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stands_on_those_before() {
        let plot = Plot::new("a", "b").stacked();
        let plot = plot
            .line("c", [(0.0, 1.0), (1.0, 2.0)])
            .line("d", [(0.0, 10.0), (1.0, 20.0)]);
        assert_eq!(layers(&plot)[1], [(0.0, 1.0, 11.0), (1.0, 2.0, 22.0)]);
        assert_eq!(sums(&plot), [11.0, 22.0]);
    }
}
