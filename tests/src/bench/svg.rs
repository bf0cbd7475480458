//! Curves on two logarithmic axes, as SVG.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
/// Around the curves, for titles and labels: left, right, top, bottom.
const MARGINS: [f64; 4] = [70.0, 20.0, 40.0, 50.0];
const COLOURS: [&str; 4] = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd"];

/// A name and its points, from left to right; every coordinate is more than 0.
#[derive(Clone, Debug)]
pub struct Curve<'a> {
    /// For the legend.
    pub label: &'a str,
    /// As measured.
    pub points: Vec<(f64, f64)>,
}

/// From one power of ten to another.
struct Axis {
    first: f64,
    last: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn around(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut first, mut last) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            first = first.min(value.log10().floor());
            last = last.max(value.log10().ceil());
        }
        Self { first, last: last.max(first + 1.0), from, to }
    }

    fn at(&self, value: f64) -> f64 {
        self.from + (value.log10() - self.first) / (self.last - self.first) * (self.to - self.from)
    }

    /// Every power of ten, with where it stands.
    fn ticks(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let powers = std::iter::successors(Some(self.first), |power| Some(power + 1.0));
        powers
            .take_while(|power| *power <= self.last)
            .map(|power| 10f64.powf(power))
            .map(|value| (value, self.at(value)))
    }
}

/// A picture of `curves`, at least one of which has a point.
pub fn chart(title: &str, x_label: &str, y_label: &str, curves: &[Curve<'_>]) -> String {
    let [left, right, top, bottom] = [MARGINS[0], WIDTH - MARGINS[1], MARGINS[2], HEIGHT - MARGINS[3]];
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let x = Axis::around(points().map(|point| point.0), left, right);
    let y = Axis::around(points().map(|point| point.1), bottom, top);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut text = |at: (f64, f64), anchor: &str, colour: &str, text: &str| {
        let (x, y) = at;
        // Writing to a string can't fail, here and below.
        let _ =
            writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{text}</text>");
    };
    text((f64::midpoint(left, right), 18.0), "middle", "black", title);
    text((f64::midpoint(left, right), HEIGHT - 12.0), "middle", "black", x_label);
    text((left, top - 8.0), "middle", "black", y_label);
    for (value, at) in x.ticks() {
        text((at, bottom + 18.0), "middle", "black", &value.to_string());
    }
    for (value, at) in y.ticks() {
        text((left - 6.0, at + 4.0), "end", "black", &value.to_string());
    }
    for ((curve, colour), row) in curves.iter().zip(COLOURS).zip(0u8..) {
        text((right - 6.0, top + 14.0 + 16.0 * f64::from(row)), "end", colour, curve.label);
    }
    for (_, at) in x.ticks() {
        let _ = writeln!(svg, "<path d=\"M{at:.1} {top}V{bottom}\" stroke=\"#ddd\"/>");
    }
    for (_, at) in y.ticks() {
        let _ = writeln!(svg, "<path d=\"M{left} {at:.1}H{right}\" stroke=\"#ddd\"/>");
    }
    for (curve, colour) in curves.iter().zip(COLOURS) {
        let places: Vec<_> = curve.points.iter().map(|point| (x.at(point.0), y.at(point.1))).collect();
        let line: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let line = line.join(" ");
        let _ = writeln!(svg, "<polyline points=\"{line}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
        for (x, y) in places {
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_ten_stand_at_equal_distances() {
        let axis = Axis::around([20.0, 900.0].into_iter(), 0.0, 100.0);
        assert_eq!(axis.ticks().collect::<Vec<_>>(), [(10.0, 0.0), (100.0, 50.0), (1000.0, 100.0)]);
        let flat = Axis::around([10.0].into_iter(), 0.0, 100.0);
        assert_eq!(flat.at(10.0), 0.0);
    }

    #[test]
    fn every_curve_has_its_line_and_its_points() {
        let curve = |label| Curve { label, points: vec![(1e3, 20.0), (1e6, 40.0)] };
        let svg = chart("title", "x", "y", &[curve("one"), curve("two")]);
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert_eq!(svg.matches("<circle").count(), 4);
        assert!(svg.contains(">two</text>") && svg.contains(">1000000</text>") && svg.ends_with("</svg>\n"));
    }
}
