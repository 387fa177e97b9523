//! Lines over time.

use anyhow::Result;
use plotters::{element::DashedPathElement, prelude::*, style::text_anchor::HPos};

use super::{
    canvas::{self, Area, Colour, Heading, MARGIN},
    words::thousands,
};

const PLOT: i32 = 300;
const SYMBOL: i32 = 28;
/// How many colours there are; further lines are dashed.
const COLOURS: usize = 6;
/// Above the greatest value.
const HEADROOM: f64 = 1.08;

pub struct Chart {
    pub heading: Heading,
    pub unit: Unit,
    /// Seconds that it shows.
    pub time: f64,
    pub all: Vec<Series>,
}

pub struct Series {
    pub label: String,
    /// Seconds and values, in order.
    pub points: Vec<(f64, f64)>,
}

/// What values are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Number,
    FramesPerSecond,
    BytesPerSecond,
    Seconds,
    Share,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::FramesPerSecond => "frames per second",
            Self::BytesPerSecond => "bytes per second",
            Self::Seconds => "seconds",
            Self::Share => "%",
        }
    }

    /// A value in words, with as many digits as a step of this size needs.
    pub fn text(self, value: f64, step: f64) -> String {
        let (value, step) = if self == Self::Share {
            (100.0 * value, 100.0 * step)
        } else {
            (value, step)
        };
        let (value, step, more) = if step >= 1e8 {
            (value / 1e9, step / 1e9, " G")
        } else if step >= 1e5 {
            (value / 1e6, step / 1e6, " M")
        } else {
            (value, step, "")
        };
        let needed = (0..6).find(|&decimals| step * 10_f64.powi(decimals) >= 0.99);
        // What is counted has none.
        let is_whole = self == Self::Number && value.fract() == 0.0;
        let decimals = if is_whole { 0 } else { needed.unwrap_or(6) };
        thousands(value, usize::try_from(decimals).unwrap_or(0)) + more
    }
}

impl Chart {
    pub fn draw(&self) -> Result<String> {
        let (places, legend) = canvas::legend(self.all.iter().map(|series| &*series.label), SYMBOL);
        let top = self.heading.height() + 10;
        canvas::draw(top + legend + PLOT, |area| {
            self.heading.draw(area)?;
            for (index, (series, (x, y))) in self.all.iter().zip(places).enumerate() {
                let y = top + y + 7;
                line(area, index, &[(x, y), (x + SYMBOL, y)])?;
                let style = canvas::beside(&canvas::small(), HPos::Left);
                area.draw_text(&series.label, &style, (x + SYMBOL + 8, y))?;
            }
            self.plot(area, top + legend)
        })
    }

    fn plot(&self, area: &Area, top: i32) -> Result<()> {
        let values = self
            .all
            .iter()
            .flat_map(|series| &series.points)
            .map(|&(_, value)| value);
        let most = values.fold(0.0, f64::max);
        let most = if most > 0.0 { most * HEADROOM } else { 1.0 };
        let (_, below) = area.split_vertically(top);
        let mut chart = ChartBuilder::on(&below)
            .margin(MARGIN)
            .margin_top(8)
            .margin_bottom(8)
            .set_label_area_size(LabelAreaPosition::Bottom, 46)
            .set_label_area_size(LabelAreaPosition::Left, 78)
            .build_cartesian_2d(0.0..self.time, 0.0..most)?;
        let steps = 6;
        chart
            .configure_mesh()
            .bold_line_style(Colour::GRID.rgb())
            .light_line_style(TRANSPARENT)
            .axis_style(Colour::GRID.rgb())
            .x_labels(10)
            .y_labels(steps)
            .label_style(canvas::small())
            .axis_desc_style(canvas::small())
            .x_desc("seconds")
            .y_desc(self.unit.name())
            .x_label_formatter(&|seconds| thousands(*seconds, 0))
            .y_label_formatter(&|value| self.unit.text(*value, most / 10.0))
            .draw()?;
        for (index, series) in self.all.iter().enumerate() {
            let places: Vec<_> = series
                .points
                .iter()
                .map(|point| chart.backend_coord(point))
                .collect();
            line(area, index, &places)?;
            if let [(x, y)] = places[..] {
                area.draw(&Circle::new((x, y), 3, canvas::colour(index).rgb().filled()))?;
            }
        }
        Ok(())
    }
}

fn line(area: &Area, index: usize, places: &[(i32, i32)]) -> Result<()> {
    let style = canvas::colour(index).rgb().stroke_width(2);
    if index < COLOURS {
        area.draw(&PathElement::new(places, style))?;
    } else {
        area.draw(&DashedPathElement::new(places.iter().copied(), 6, 4, style))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_digits_that_tell_them_apart() {
        for (unit, value, step, text) in [
            (Unit::Number, 3.0, 1.0, "3"),
            (Unit::Number, 1.5, 0.5, "1.5"),
            (Unit::Number, 5.0, 0.5, "5"),
            (Unit::FramesPerSecond, 12_345.0, 1000.0, "12\u{202f}345"),
            (Unit::BytesPerSecond, 1.5e9, 5e8, "1.5 G"),
            (Unit::BytesPerSecond, 12e6, 2e6, "12 M"),
            (Unit::Seconds, 0.025, 0.005, "0.025"),
            (Unit::Share, 0.5, 0.1, "50"),
        ] {
            assert_eq!(unit.text(value, step), text, "{unit:?}");
        }
    }

    #[test]
    fn every_series_is_named_and_nothing_can_be_drawn_too() {
        canvas::load_fonts().unwrap();
        let series = |label: &str, points| Series {
            label: label.into(),
            points,
        };
        let mut chart = Chart {
            heading: Heading {
                title: "Some".into(),
                notes: vec!["what it is of".into()],
            },
            unit: Unit::Number,
            time: 60.0,
            all: vec![
                series("one", vec![(0.0, 1.0), (30.0, 2.0)]),
                series("two", vec![(5.0, 0.0)]),
            ],
        };
        let svg = chart.draw().unwrap();
        for words in ["Some", "what it is of", "one", "two", "seconds"] {
            assert!(svg.contains(words), "{words}");
        }
        chart.all.clear();
        assert!(chart.draw().unwrap().contains("Some"));
    }
}
