//! Curves of percentiles, on an axis that gives every nine the same room.

use anyhow::Result;
use plotters::{
    coord::combinators::{BindKeyPoints, IntoLogRange},
    element::DashedPathElement,
    prelude::*,
    style::text_anchor::HPos,
};

use super::{
    canvas::{self, Area, Colour, Heading, MARGIN},
    words::thousands,
};
use crate::report::compare::Spread;

const PLOT: i32 = 440;
const SYMBOL: i32 = 40;
/// How much colour there is between the least and the greatest.
const SHADE: f64 = 0.16;

pub struct Curves {
    pub heading: Heading,
    pub unit: String,
    pub all: Vec<Curve>,
}

pub struct Curve {
    pub label: String,
    pub colour: Colour,
    /// Which of the marks it has at its points.
    pub mark: usize,
    /// Which of the dashes; the first is none.
    pub dash: usize,
    /// Percentiles below 100, ascending, and their values above 0.
    pub points: Vec<(f64, Spread)>,
}

/// Where a percentile lies: one in so many is beyond it.
fn one_in(percentile: f64) -> f64 {
    100.0 / (100.0 - percentile)
}

impl Curves {
    pub fn draw(&self) -> Result<String> {
        let (places, legend) = canvas::legend(self.all.iter().map(|curve| &*curve.label), SYMBOL);
        let top = self.heading.height() + 14;
        canvas::draw(top + legend + PLOT, |area| {
            self.heading.draw(area)?;
            for (curve, (x, y)) in self.all.iter().zip(places) {
                let (from, to) = ((x, top + y + 7), (x + SYMBOL, top + y + 7));
                curve.line(area, &[from, to])?;
                curve.mark(area, (x + SYMBOL / 2, top + y + 7))?;
                let style = canvas::beside(&canvas::small(), HPos::Left);
                area.draw_text(&curve.label, &style, (x + SYMBOL + 8, top + y + 7))?;
            }
            self.plot(area, top + legend)
        })
    }

    fn plot(&self, area: &Area, top: i32) -> Result<()> {
        let points = || self.all.iter().flat_map(|curve| &curve.points);
        let low = points().map(|(_, value)| value.min).fold(f64::INFINITY, f64::min);
        let high = points().map(|(_, value)| value.max).fold(0.0, f64::max);
        let last = points().map(|&(percentile, _)| percentile).fold(90.0, f64::max);
        let (low, high) = if low < high { (low, high) } else { (1.0, 10.0) };
        // From a line to a line of the grid.
        let low = steps().rfind(|&step| step <= low).unwrap_or(low);
        let high = steps().find(|&step| step >= high).unwrap_or(high);
        let (_, below) = area.split_vertically(top);
        let percentiles = [50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 99.999];
        let mut chart = ChartBuilder::on(&below)
            .margin(MARGIN)
            .margin_top(8)
            .margin_bottom(8)
            .set_label_area_size(LabelAreaPosition::Bottom, 46)
            .set_label_area_size(LabelAreaPosition::Left, 78)
            .build_cartesian_2d(
                (1.8..one_in(last) * 1.15)
                    .log_scale()
                    .with_key_points(percentiles.map(one_in).into()),
                (low..high)
                    .log_scale()
                    .with_key_points(steps().filter(|step| (low..=high).contains(step)).collect()),
            )?;
        chart
            .configure_mesh()
            .bold_line_style(Colour::GRID.rgb())
            .light_line_style(TRANSPARENT)
            .axis_style(Colour::GRID.rgb())
            .x_labels(percentiles.len())
            .y_labels(30)
            .label_style(canvas::small())
            .axis_desc_style(canvas::small())
            .x_desc("percentile (logarithmic: every further nine takes as much room)")
            .y_desc(&self.unit)
            .x_label_formatter(&|one_in| percent(*one_in))
            .y_label_formatter(&|value| thousands(*value, usize::from(*value < 10.0)))
            .draw()?;
        let places = |curve: &Curve, of: fn(&Spread) -> f64| -> Vec<(i32, i32)> {
            let points = curve.points.iter();
            let places = points.map(|(percentile, value)| (one_in(*percentile), of(value)));
            places.map(|place| chart.backend_coord(&place)).collect()
        };
        for curve in &self.all {
            let mut edge = places(curve, |value| value.min);
            edge.extend(places(curve, |value| value.max).into_iter().rev());
            area.draw(&Polygon::new(edge, curve.colour.rgb().mix(SHADE).filled()))?;
        }
        for curve in &self.all {
            let places = places(curve, |value| value.median);
            curve.line(area, &places)?;
            for &place in &places {
                curve.mark(area, place)?;
            }
        }
        Ok(())
    }
}

impl Curve {
    fn line(&self, area: &Area, places: &[(i32, i32)]) -> Result<()> {
        let style = self.colour.rgb().stroke_width(3);
        let (dash, gap) = match self.dash {
            0 => {
                area.draw(&PathElement::new(places, style))?;
                return Ok(());
            }
            1 => (7, 5),
            2 => (2, 4),
            _ => (14, 5),
        };
        area.draw(&DashedPathElement::new(places.iter().copied(), dash, gap, style))?;
        Ok(())
    }

    /// A shape beside the colour, for those who see few colours.
    fn mark(&self, area: &Area, (x, y): (i32, i32)) -> Result<()> {
        let style = self.colour.rgb().filled();
        let shape: Vec<(i32, i32)> = match self.mark % 4 {
            0 => {
                area.draw(&Circle::new((x, y), 5, style))?;
                return Ok(());
            }
            1 => vec![(-5, -5), (5, -5), (5, 5), (-5, 5)],
            2 => vec![(0, -7), (6, 5), (-6, 5)],
            _ => vec![(0, -7), (7, 0), (0, 7), (-7, 0)],
        };
        let shape = shape.into_iter().map(|(right, down)| (x + right, y + down));
        area.draw(&Polygon::new(shape.collect::<Vec<_>>(), style))?;
        Ok(())
    }
}

/// 1, 2 and 5 of every power of ten.
fn steps() -> impl DoubleEndedIterator<Item = f64> {
    let powers = (-3..9).map(|power| 10_f64.powi(power));
    powers.flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * power))
}

/// "99.9 %" of one in a thousand.
fn percent(one_in: f64) -> String {
    let percentile = 100.0 - 100.0 / one_in;
    format!("{} %", (percentile * 1000.0).round() / 1000.0)
}
