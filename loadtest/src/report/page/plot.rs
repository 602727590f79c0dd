//! One plot as SVG: a thin grid, lines, and their names at their ends.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::{
    super::{Along, Line, Marker, Plot},
    labels,
    scale::Scale,
    stack,
};

/// The width of a letter of a label, about: what a browser's font of that size takes at most, on average.
const LETTER: f64 = 6.7;
/// The height of a row of labels.
const ROW: f64 = 14.0;
/// Letters of a line's name at most.
const NAME: usize = 18;

/// The size of a plot: there is one for wide screens and paper, and one for phones, since letters are to have the same size on both.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    pub(super) class: &'static str,
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    /// Ticks along, about,
    along: usize,
    /// and of values.
    values: usize,
}

/// What plots over time have in common, so that they can be read below each other.
#[derive(Debug, Clone, Default)]
pub(super) struct Together<'a> {
    /// Where the axis ends.
    pub(super) seconds: f64,
    pub(super) markers: &'a [Marker],
    /// Outside of this, nothing was measured.
    pub(super) window: Option<(f64, f64)>,
    /// Letters of the longest name of a line.
    pub(super) letters: usize,
}

pub(super) fn forms(letters: usize) -> [Form; 2] {
    let right = 16.0 + 1.1 * LETTER * letters.min(NAME) as f64;
    [
        Form {
            class: "wide",
            width: 960.0,
            height: 232.0,
            left: 48.0,
            right,
            along: 10,
            values: 4,
        },
        Form {
            class: "narrow",
            width: 358.0,
            height: 220.0,
            left: 40.0,
            right,
            along: 4,
            values: 4,
        },
    ]
}

/// Letters of the longest name of a line in a plot.
pub(super) fn letters(plot: &Plot) -> usize {
    let names = plot.lines.iter().map(|line| line.name.chars().count());
    names.max().unwrap_or_default()
}

/// Where in the drawing values are.
struct Area {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
    along: Scale,
    values: Scale,
}

impl Area {
    fn x(&self, along: f64) -> f64 {
        self.left + self.width * self.along.place(along)
    }

    fn y(&self, value: f64) -> f64 {
        let place = self.values.place(value).clamp(0.0, 1.0);
        self.top + self.height * (1.0 - place)
    }

    fn right(&self) -> f64 {
        self.left + self.width
    }

    fn bottom(&self) -> f64 {
        self.top + self.height
    }
}

/// The drawing of the plot of this number, which `heading` names.
pub(super) fn draw(number: usize, plot: &Plot, form: Form, together: &Together<'_>, heading: &str) -> Markup {
    let over_time = plot.along == Along::Time;
    let markers = if over_time { together.markers } else { &[] };
    let width = form.width - form.left - form.right;
    let seconds = together.seconds.max(f64::MIN_POSITIVE);
    let notes = notes(markers, |at| form.left + width * (at / seconds).clamp(0.0, 1.0), form);
    let rows = notes.iter().map(|note| note.row + 1).max().unwrap_or_default();
    // The name of what lines run along stands below its ticks, unless that is time.
    let below = if matches!(plot.along, Along::Quantity(_)) {
        36.0
    } else {
        22.0
    };
    let top = 8.0 + ROW * rows as f64;
    let area = Area {
        left: form.left,
        top,
        width,
        height: form.height - 30.0,
        along: Scale::along(plot, together.seconds, form.along),
        values: Scale::of_values(plot, form.values),
    };
    let height = area.bottom() + below;
    let shade = together.window.filter(|_| over_time);
    html! {
        svg class=(form.class) viewBox=(format!("0 0 {} {height}", form.width)) role="img" aria-labelledby=(heading)
            data-plot=(number) data-left=(area.left) data-width=(area.width)
            data-kind=(area.along.kind()) data-low=(area.along.low) data-high=(area.along.high) {
            desc { (describe(plot)) }
            @if let Some((from, to)) = shade {
                @for (from, to) in [(0.0, from), (to, together.seconds)] {
                    @if area.x(to) - area.x(from) > 0.5 {
                        rect.outside x=(n(area.x(from))) y=(n(area.top)) width=(n(area.x(to) - area.x(from))) height=(n(area.height)) {}
                    }
                }
            }
            g.grid {
                @for tick in &area.values.ticks {
                    @let y = area.bottom() - area.height * tick.place;
                    line x1=(n(area.left)) x2=(n(area.right())) y1=(n(y)) y2=(n(y)) {}
                    text x=(n(area.left - 7.0)) y=(n(y + 4.0)) text-anchor="end" { (tick.label) }
                }
                @for tick in fitting(&area) {
                    @let x = area.left + area.width * tick.place;
                    line x1=(n(x)) x2=(n(x)) y1=(n(area.bottom())) y2=(n(area.bottom() + 4.0)) {}
                    text x=(n(x)) y=(n(area.bottom() + 17.0)) text-anchor="middle" { (tick.label) }
                }
                line.base x1=(n(area.left)) x2=(n(area.right())) y1=(n(area.bottom())) y2=(n(area.bottom())) {}
                @if let Along::Quantity(name) = &plot.along {
                    text x=(n(area.right())) y=(n(area.bottom() + 32.0)) text-anchor="end" { (name) }
                }
            }
            g.notes {
                @for note in &notes {
                    line x1=(n(note.x)) x2=(n(note.x)) y1=(n(note.baseline() + 3.0)) y2=(n(area.bottom())) {}
                    text x=(n(note.text)) y=(n(note.baseline())) text-anchor=(note.anchor) { (note.what) }
                }
            }
            @if plot.stacked { (layers(plot, &area)) } @else { (lines(plot, &area)) }
            line.cursor x1="0" x2="0" y1=(n(area.top)) y2=(n(area.bottom())) {}
        }
    }
}

/// Ticks whose labels are not upon each other: at the right end of a scale of nines they might be.
fn fitting(area: &Area) -> Vec<&super::scale::Tick> {
    let mut free = f64::NEG_INFINITY;
    let fits = |tick: &&super::scale::Tick| {
        let middle = area.left + area.width * tick.place;
        let half = LETTER * tick.label.chars().count() as f64 / 2.0;
        let fits = middle - half >= free;
        if fits {
            free = middle + half + 6.0;
        }
        fits
    };
    area.along.ticks.iter().filter(fits).collect()
}

/// A marker, and where its text is.
struct Note<'a> {
    x: f64,
    text: f64,
    anchor: &'static str,
    what: &'a str,
    row: usize,
}

impl Note<'_> {
    fn baseline(&self) -> f64 {
        11.0 + ROW * self.row as f64
    }
}

fn notes<'a>(markers: &'a [Marker], x: impl Fn(f64) -> f64, form: Form) -> Vec<Note<'a>> {
    let mut notes = Vec::new();
    let mut extents = Vec::new();
    for marker in markers {
        let x = x(marker.at);
        let width = LETTER * marker.what.chars().count() as f64 + 10.0;
        // To the right of its line, unless there is no room.
        let (begin, anchor, text) = if x + width <= form.width {
            (x - 2.0, "start", x - 2.0)
        } else {
            ((x - width).max(0.0), "end", x + 2.0)
        };
        extents.push((begin, begin + width));
        notes.push(Note {
            x,
            text,
            anchor,
            what: &marker.what,
            row: 0,
        });
    }
    for (note, row) in notes.iter_mut().zip(labels::rows(&extents)) {
        note.row = row;
    }
    notes
}

fn lines(plot: &Plot, area: &Area) -> Markup {
    let visible = |&&(_, value): &&(f64, f64)| !plot.log_scale || value > 0.0;
    let shown: Vec<Vec<(f64, f64)>> = plot
        .lines
        .iter()
        .map(|line| line.points.iter().filter(visible).copied().collect())
        .collect();
    let ends = shown
        .iter()
        .map(|points| points.last().map(|&(along, value)| (area.x(along), area.y(value))));
    html! {
        // The first is the one that matters most, and lies above the others.
        @for (number, points) in shown.iter().enumerate().rev() {
            g class=(colour(number)) {
                path.line d=(path(points, area)) {}
                @for &(along, value) in alone(points, area) {
                    circle cx=(n(area.x(along))) cy=(n(area.y(value))) r="2" {}
                }
            }
        }
        (names(&plot.lines, &ends.collect::<Vec<_>>(), area))
    }
}

fn layers(plot: &Plot, area: &Area) -> Markup {
    let layers = stack::layers(plot);
    let end = |layer: &Vec<(f64, f64, f64)>| {
        let &(along, bottom, top) = layer.last()?;
        Some((area.x(along), area.y(f64::midpoint(bottom, top))))
    };
    let ends: Vec<_> = layers.iter().map(end).collect();
    html! {
        @for (number, layer) in layers.iter().enumerate() {
            @let top: Vec<_> = layer.iter().map(|&(along, _, top)| (along, top)).collect();
            @let bottom: Vec<_> = layer.iter().rev().map(|&(along, bottom, _)| (along, bottom)).collect();
            g class=(colour(number)) {
                path.area d=(joined(top.iter().chain(&bottom), area) + "Z") {}
                path.line d=(joined(top.iter(), area)) {}
            }
        }
        (names(&plot.lines, &ends, area))
    }
}

/// The names of lines, each next to where its line ends.
fn names(lines: &[Line], ends: &[Option<(f64, f64)>], area: &Area) -> Markup {
    let named: Vec<_> = ends
        .iter()
        .enumerate()
        .filter_map(|(number, end)| Some((number, (*end)?)))
        .collect();
    let wanted: Vec<_> = named.iter().map(|&(_, (_, y))| y).collect();
    let places = labels::apart(&wanted, ROW, area.top + 3.0, area.bottom() - 2.0);
    html! {
        g.names {
            @for (&(number, (x, y)), &place) in named.iter().zip(&places) {
                g class=(colour(number)) {
                    // Most lines end at the right side: their names are all in one column.
                    @let from = if area.right() - x > area.width / 10.0 { x } else { area.right() };
                    @if (place - y).abs() > 3.0 || from - x > 6.0 {
                        path.leader d=(format!("M{} {}L{} {}L{} {}", n(x + 2.0), n(y), n(from.max(x + 2.0)), n(y), n(from + 9.0), n(place))) {}
                    }
                    text x=(n(from + 12.0)) y=(n(place + 4.0)) { (short(&lines[number].name)) }
                }
            }
        }
    }
}

fn short(name: &str) -> String {
    if name.chars().count() <= NAME {
        return name.to_owned();
    }
    name.chars().take(NAME - 1).chain(['…']).collect()
}

/// A class that has a colour.
pub(super) fn colour(number: usize) -> String {
    /// As many as the style sheet has.
    const COLOURS: usize = 8;
    format!("c{}", number % COLOURS)
}

/// Where a line is interrupted: where nothing was received for several times as long as usual.
fn pieces<'a>(points: &'a [(f64, f64)], area: &Area) -> impl Iterator<Item = &'a [(f64, f64)]> + use<'a> {
    let mut distances: Vec<_> = points.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    distances.sort_by(f64::total_cmp);
    let usual = distances.get(distances.len() / 2).copied().unwrap_or_default();
    let limit = if area.along.unit == "s" || area.along.unit == "min" {
        4.5 * usual
    } else {
        f64::INFINITY
    };
    points.chunk_by(move |before, after| after.0 - before.0 <= limit)
}

fn path(points: &[(f64, f64)], area: &Area) -> String {
    pieces(points, area)
        .filter(|piece| piece.len() > 1)
        .map(|piece| joined(piece.iter(), area))
        .collect()
}

/// Points that belong to no line; and all of them where there are few.
fn alone<'a>(points: &'a [(f64, f64)], area: &Area) -> Vec<&'a (f64, f64)> {
    const FEW: usize = 24;
    let of_piece = |piece: &&[(f64, f64)]| piece.len() == 1 || points.len() <= FEW;
    pieces(points, area).filter(of_piece).flatten().collect()
}

fn joined<'a>(points: impl Iterator<Item = &'a (f64, f64)>, area: &Area) -> String {
    let mut path = String::new();
    for (place, &(along, value)) in points.enumerate() {
        let command = if place == 0 { 'M' } else { 'L' };
        // Writing to a string cannot fail.
        let _ = write!(path, "{command}{} {}", n(area.x(along)), n(area.y(value)));
    }
    path
}

/// A coordinate: a tenth of a pixel is enough.
fn n(coordinate: f64) -> String {
    let text = format!("{coordinate:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// The plot in a sentence, for those who do not see it.
fn describe(plot: &Plot) -> String {
    let line = |line: &Line| {
        let values = || line.points.iter().map(|&(_, value)| value);
        let (least, most) = (values().reduce(f64::min)?, values().reduce(f64::max)?);
        let [least, most] = [least, most].map(|value| super::with_unit(value, &plot.unit));
        Some(format!("{} from {least} to {most}", line.name))
    };
    let lines: Vec<_> = plot.lines.iter().filter_map(line).collect();
    let along = match &plot.along {
        Along::Time => "over time".to_owned(),
        Along::Percentile => "by percentile".to_owned(),
        Along::Quantity(name) => format!("by {name}"),
    };
    format!("{along}: {}", lines.join("; "))
}
