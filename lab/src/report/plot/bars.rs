//! Bars that lie, so that the names beside them may be long.

use anyhow::Result;
use plotters::{
    prelude::*,
    style::{FontStyle, text_anchor::HPos},
};

use super::{
    canvas::{self, Area, Colour, Heading, MARGIN},
    words::thousands,
};

/// Of a bar and the gap below it.
const ROW: i32 = 32;
const BAR: i32 = 23;
/// Below a group.
const GAP: i32 = 12;
const AXIS: i32 = 46;
/// Of a line of a group's name, and how long it may get.
const LINE: i32 = 18;
const NAME: i32 = 190;
/// Between two numbers of the axis, at least, and how many there may be.
const LABEL_GAP: i32 = 16;
const MOST_LABELS: i32 = 8;

pub struct Bars {
    pub heading: Heading,
    pub unit: String,
    pub groups: Vec<Group>,
    pub legend: Vec<(String, Colour)>,
}

/// Bars with one name.
pub struct Group {
    /// In as many lines as it needs.
    pub label: String,
    pub bars: Vec<Bar>,
}

pub struct Bar {
    /// Beside the group's.
    pub label: String,
    /// At its end.
    pub text: String,
    /// Lengths, one after the other.
    pub parts: Vec<(f64, Colour)>,
    pub whisker: Option<(f64, f64)>,
}

impl Bar {
    fn length(&self) -> f64 {
        self.parts.iter().map(|(length, _)| length).sum()
    }

    /// The farthest that is drawn of it.
    fn end(&self) -> f64 {
        self.whisker.map_or(0.0, |(_, max)| max).max(self.length())
    }
}

impl Bars {
    pub fn draw(&self) -> Result<String> {
        let symbol = 14;
        let (places, legend) = canvas::legend(self.legend.iter().map(|(label, _)| &**label), symbol);
        let top = self.heading.height() + 14;
        let legend_gap = if legend > 0 { 10 } else { 0 };
        let plot_top = top + legend + legend_gap;
        let rows: i32 = self.groups.iter().map(Group::height).sum();
        canvas::draw(plot_top + GAP + rows + AXIS + 8, |area| {
            self.heading.draw(area)?;
            for ((label, colour), (x, y)) in self.legend.iter().zip(places) {
                let corner = (x, top + y);
                let square = [corner, (x + symbol, top + y + symbol)];
                area.draw(&Rectangle::new(square, colour.rgb().filled()))?;
                let style = canvas::beside(&canvas::small(), HPos::Left);
                area.draw_text(label, &style, (x + symbol + 8, top + y + symbol / 2))?;
            }
            self.plot(area, plot_top)
        })
    }

    fn plot(&self, area: &Area, top: i32) -> Result<()> {
        let bars = || self.groups.iter().flat_map(|group| &group.bars);
        let widest = |labels: &mut dyn Iterator<Item = &str>, style| {
            labels
                .map(|label| canvas::width(label, &style))
                .max()
                .unwrap_or(0)
        };
        let names = self.groups.iter().flat_map(Group::lines).collect::<Vec<_>>();
        let names = widest(&mut names.iter().map(String::as_str), name());
        let labels = widest(&mut bars().map(|bar| &*bar.label), canvas::small());
        let left = MARGIN + names + if labels > 0 { labels + 16 } else { 0 } + 12;
        let right = MARGIN + widest(&mut bars().map(|bar| &*bar.text), canvas::small()) + 10;
        let (_, below) = area.split_vertically(top);
        let ends = bars().map(Bar::end).filter(|end| end.is_finite());
        let farthest = ends.fold(0.0, f64::max);
        let room = canvas::WIDTH.cast_signed() - left - right;
        let label = canvas::width(&axis_label(farthest, farthest), &canvas::small()) + LABEL_GAP;
        let ticks = (room / label).clamp(2, MOST_LABELS).unsigned_abs() as usize;
        let mut chart = ChartBuilder::on(&below)
            .margin_left(left)
            .margin_right(right)
            .margin_bottom(8)
            .set_label_area_size(LabelAreaPosition::Bottom, AXIS)
            // Something to divide by, where all is nothing.
            .build_cartesian_2d(0.0..farthest.max(1e-9), 0.0..1.0)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_labels(ticks)
            .bold_line_style(Colour::GRID.rgb())
            .light_line_style(TRANSPARENT)
            .axis_style(Colour::GRID.rgb())
            .label_style(canvas::small())
            .axis_desc_style(canvas::small())
            .x_desc(&self.unit)
            .x_label_formatter(&|value| axis_label(*value, farthest))
            .draw()?;
        let x = |value: f64| chart.backend_coord(&(value, 0.0)).0;
        let mut y = top + GAP;
        for group in &self.groups {
            let lines = group.lines();
            let above = LINE * (i32::try_from(lines.len()).unwrap_or(0) - 1) / 2;
            let middle = y + (group.height() - GAP) / 2 - (ROW - BAR) / 2 - above;
            for (number, line) in (0..).zip(lines) {
                let style = canvas::beside(&name(), HPos::Left);
                area.draw_text(&line, &style, (MARGIN, middle + LINE * number))?;
            }
            let mut top = y + (group.height() - GAP - group.rows()) / 2;
            for bar in &group.bars {
                bar.draw(area, top, left, x)?;
                top += ROW;
            }
            y += group.height();
        }
        Ok(())
    }
}

impl Group {
    fn lines(&self) -> Vec<String> {
        canvas::wrap(&self.label, &name(), NAME)
    }

    fn rows(&self) -> i32 {
        ROW * i32::try_from(self.bars.len()).unwrap_or(0)
    }

    fn height(&self) -> i32 {
        let lines = LINE * i32::try_from(self.lines().len()).unwrap_or(0);
        self.rows().max(lines) + GAP
    }
}

impl Bar {
    fn draw(&self, area: &Area, top: i32, left: i32, x: impl Fn(f64) -> i32) -> Result<()> {
        let middle = top + BAR / 2;
        let beside = canvas::beside(&canvas::small(), HPos::Right);
        area.draw_text(&self.label, &beside, (left - 12, middle))?;
        let mut start = 0.0;
        for &(length, colour) in &self.parts {
            let corners = [(x(start), top), (x(start + length), top + BAR)];
            area.draw(&Rectangle::new(corners, colour.rgb().filled()))?;
            start += length;
        }
        if let Some((min, max)) = self.whisker.filter(|(min, max)| min < max) {
            let line = |from, to| PathElement::new([from, to], Colour::TEXT.rgb().stroke_width(2));
            area.draw(&line((x(min), middle), (x(max), middle)))?;
            for end in [x(min), x(max)] {
                area.draw(&line((end, middle - 5), (end, middle + 5)))?;
            }
        }
        let (text, start) = (canvas::beside(&canvas::small(), HPos::Left), x(self.end()) + 10);
        // No line of the grid is to go through the metric.
        let behind = [
            (start - 3, middle - 9),
            (start + canvas::width(&self.text, &text), middle + 9),
        ];
        area.draw(&Rectangle::new(behind, WHITE.filled()))?;
        area.draw_text(&self.text, &text, (start, middle))?;
        Ok(())
    }
}

fn name() -> TextStyle<'static> {
    canvas::text(14, FontStyle::Bold, Colour::TEXT)
}

fn axis_label(value: f64, farthest: f64) -> String {
    match farthest {
        ..1.0 => format!("{value:.2}"),
        ..10.0 => format!("{value:.1}"),
        _ => thousands(value, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The axis' numbers, from left to right: where the middle of each is, and the number.
    fn axis(svg: &str) -> Vec<(i32, &str)> {
        let texts = svg
            .split("<text ")
            .filter(|text| text.contains(r#"text-anchor="middle""#));
        let number = |text: &&str| text.starts_with(|digit: char| digit.is_ascii_digit());
        let mut axis: Vec<_> = texts
            .filter_map(|text| {
                let (_, x) = text.split_once(r#"x=""#)?;
                let (_, shown) = text.split_once('>')?;
                let shown = shown.split('<').next()?.trim();
                Some((x.split('"').next()?.parse().ok()?, shown)).filter(|(_, shown)| number(shown))
            })
            .collect();
        axis.sort_unstable();
        axis
    }

    #[test]
    fn numbers_of_the_axis_do_not_touch() {
        canvas::load_fonts().unwrap();
        for length in [0.5, 25.0, 1_366_000.0, 98_765_432.0] {
            let bar = Bar {
                label: "linux-bridge".into(),
                text: "a figure (×1.40, 0.88 to 2.25) and more".into(),
                parts: vec![(length, Colour::OTHERS)],
                whisker: None,
            };
            let bars = Bars {
                heading: Heading {
                    title: "Packets".into(),
                    notes: Vec::new(),
                },
                unit: "frames".into(),
                groups: vec![Group {
                    label: "64 B, 1 pair".into(),
                    bars: vec![bar],
                }],
                legend: Vec::new(),
            };
            let svg = bars.draw().unwrap();
            let axis = axis(&svg);
            assert!(axis.len() >= 2, "{length}: {axis:?}");
            for pair in axis.windows(2) {
                let widths = pair
                    .iter()
                    .map(|(_, text)| canvas::width(text, &canvas::small()))
                    .sum::<i32>();
                assert!(pair[1].0 - pair[0].0 > widths / 2 + 4, "{length}: {axis:?}");
            }
        }
    }
}
