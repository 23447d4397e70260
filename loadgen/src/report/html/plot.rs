//! Line plots as inline SVG: no script, colours by class, so that the page's own scheme holds.

use std::fmt::Write as _;

/// The drawing, and the space that its axes take.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 26.0;
/// Lines of the grid, about.
const TICKS: f64 = 5.0;

/// The colours there are.
const CLASSES: [&str; 4] = ["a", "b", "c", "d"];

/// One line of a plot; gaps are left out.
pub struct Line {
    pub name: &'static str,
    pub points: Vec<(f64, f64)>,
}

/// What the vertical axis counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// From nothing.
    Linear,
    /// By powers of ten; for what spans several of them.
    Logarithmic,
}

/// What the horizontal axis counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Across {
    /// Seconds.
    Time,
    /// Percentiles: each step to the right is a tenth of the rest.
    Percentiles,
}

/// A plot.
pub struct Plot<'a> {
    pub title: &'a str,
    /// Of the vertical axis.
    pub unit: &'a str,
    pub lines: Vec<Line>,
    /// What happened when, as vertical lines.
    pub marks: &'a [(f64, String)],
    pub scale: Scale,
    pub across: Across,
}

/// An axis: from its first to its last value, with its ticks.
struct Axis {
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    fn share(&self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    fn linear(highest: f64, unit: &str) -> Axis {
        let step = nice_step(highest / TICKS);
        let high = (highest / step).ceil().max(1.0) * step;
        let count = (high / step).round() as u32;
        let tick = |number| f64::from(number) * step;
        let ticks = (0..=count).map(|number| (tick(number), short(tick(number)) + unit)).collect();
        Axis { low: 0.0, high, ticks }
    }

    fn logarithmic(lowest: f64, highest: f64, unit: &str) -> Axis {
        let low = lowest.max(1e-6).log10().floor();
        let high = highest.max(1e-6).log10().ceil().max(low + 1.0);
        let ticks = (low as i32..=high as i32)
            .map(|power| (f64::from(power), short(10f64.powi(power)) + unit))
            .collect();
        Axis { low, high, ticks }
    }

    fn percentiles(highest: f64) -> Axis {
        let high = highest.ceil().max(2.0);
        let names = ["0", "90", "99", "99.9", "99.99", "99.999", "99.9999", "99.99999"];
        let ticks = (0..=high as usize).zip(names);
        let ticks = ticks.map(|(nines, name)| (nines as f64, format!("{name} %"))).collect();
        Axis { low: 0.0, high, ticks }
    }
}

/// Where a percentile lies on its axis: the number of its nines.
pub fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).max(1e-9).log10()
}

/// The figure with its caption and legend.
pub fn figure(plot: &Plot<'_>) -> String {
    let mut out = String::from("<figure><figcaption>");
    out += plot.title;
    for (line, class) in plot.lines.iter().zip(CLASSES) {
        let _ = write!(out, "<span><i class=\"{class}\"></i>{}</span>", line.name);
    }
    out += "</figcaption>";
    if plot.lines.iter().all(|line| line.points.is_empty()) {
        out += "<p class=\"faint\">nothing was counted</p></figure>\n";
        return out;
    }
    draw(plot, &mut out);
    out += "</figure>\n";
    out
}

fn draw(plot: &Plot<'_>, out: &mut String) {
    let all = || plot.lines.iter().flat_map(|line| &line.points);
    let x_max = all().map(|point| point.0).fold(0.0, f64::max);
    let y_max = all().map(|point| point.1).fold(0.0, f64::max);
    let y_min = all().map(|point| point.1).filter(|&y| y > 0.0).fold(f64::MAX, f64::min).min(y_max);
    let across = match plot.across {
        Across::Time => Axis { high: x_max.max(1e-3), ..Axis::linear(x_max, " s") },
        Across::Percentiles => Axis::percentiles(x_max),
    };
    let up = match plot.scale {
        Scale::Linear => Axis::linear(y_max, plot.unit),
        Scale::Logarithmic => Axis::logarithmic(y_min, y_max, plot.unit),
    };
    let x_of = |x: f64| LEFT + across.share(x) * (WIDTH - LEFT - RIGHT);
    let y_of = |y: f64| HEIGHT - BOTTOM - up.share(y) * (HEIGHT - TOP - BOTTOM);
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        plot.title
    );
    let (right, floor) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for (value, name) in &up.ticks {
        let y = y_of(*value);
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
            LEFT - 6.0,
            y + 4.0
        );
    }
    for (value, name) in across.ticks.iter().filter(|(value, _)| *value <= across.high) {
        let anchor = if *value >= across.high * 0.97 { "end" } else { "middle" };
        let (x, y) = (x_of(*value), HEIGHT - 8.0);
        let _ = write!(out, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">{name}</text>");
    }
    for (at, name) in plot.marks {
        let x = x_of(*at);
        let _ = write!(
            out,
            "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{floor}\"/>\
             <text x=\"{:.1}\" y=\"11\">{name}</text>",
            (x + 3.0).min(right - 60.0)
        );
    }
    for (line, class) in plot.lines.iter().zip(CLASSES) {
        let _ = write!(out, "<polyline class=\"{class}\" points=\"");
        for &(x, y) in &line.points {
            let y = if plot.scale == Scale::Logarithmic { y.max(1e-6).log10() } else { y };
            let _ = write!(out, "{:.1},{:.1} ", x_of(x), y_of(y));
        }
        *out += "\"/>";
    }
    *out += "</svg>";
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn nice_step(least: f64) -> f64 {
    let least = least.max(1e-9);
    let power = 10f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|&step| step >= least * 0.999).unwrap_or(10.0 * power)
}

/// `1.5 M`, `20 k`, `0.25`.
pub fn short(number: f64) -> String {
    let (scaled, unit) = match number.abs() {
        large if large >= 1e6 => (number / 1e6, " M"),
        middle if middle >= 1e4 => (number / 1e3, " k"),
        _ => (number, ""),
    };
    let rounded = (scaled * 1e3).round() / 1e3;
    format!("{rounded}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, f64)>, scale: Scale) -> String {
        let lines = vec![Line { name: "line", points }];
        let across = Across::Time;
        figure(&Plot { title: "title", unit: " ms", lines, marks: &[], scale, across })
    }

    #[test]
    fn ticks_are_round_numbers_that_reach_the_top() {
        for (highest, steps) in [(7.0, 4), (100.0, 5), (33_000.0, 4), (0.34, 4), (0.0, 1)] {
            let axis = Axis::linear(highest, "");
            assert!(axis.high >= highest && axis.ticks.len() == steps + 1, "{highest}");
        }
        assert_eq!(short(1_500_000.0) + &short(20_000.0) + &short(0.25), "1.5 M20 k0.25");
    }

    #[test]
    fn lines_stay_inside_whatever_they_hold() {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            for points in [vec![(0.0, 0.0)], vec![(0.0, 5.0), (1.0, 1e9), (2.0, 0.0)]] {
                let svg = plot(points, scale);
                let inside = svg.split("points=\"").nth(1).expect("a line");
                let inside = inside.split('"').next().expect("its end");
                for pair in inside.split_whitespace() {
                    let (x, y) = pair.split_once(',').expect("a pair");
                    let (x, y): (f64, f64) = (x.parse().expect("x"), y.parse().expect("y"));
                    assert!((LEFT..=WIDTH).contains(&x) && (0.0..=HEIGHT).contains(&y), "{pair}");
                }
            }
        }
        assert!(plot(Vec::new(), Scale::Linear).contains("nothing was counted"));
    }
}
