//! Tables, for the terminal and for Markdown (by hand: comfy-table's has no alignment).

use comfy_table::{CellAlignment, Table as Grid, TableComponent, presets};

use super::compare::{Ratio, Spread};

/// Between columns of text.
const GAP: u16 = 2;

/// Where there is nothing to tell.
pub const NOTHING: &str = "–";

/// The first column is of names, the others are of numbers unless [`Table::of_words`] says otherwise.
pub struct Table {
    words: usize,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(head: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            words: 1,
            head: head.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    /// How many columns, from the first, are of words.
    pub fn of_words(mut self, columns: usize) -> Self {
        self.words = columns;
        self
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table without the columns of numbers that have nothing in any row.
    pub fn without_empty_columns(self) -> Self {
        let told = |column| self.rows.iter().any(|row| row[column] != NOTHING);
        let kept = (0..self.head.len()).map(|column| column < self.words || told(column));
        let kept: Vec<_> = kept.collect();
        self.with(&kept)
    }

    /// The table without columns of these names.
    pub fn without(self, names: &[&str]) -> Self {
        let kept = self.head.iter().map(|name| !names.contains(&&**name));
        let kept: Vec<_> = kept.collect();
        self.with(&kept)
    }

    fn with(mut self, kept: &[bool]) -> Self {
        for cells in self.rows.iter_mut().chain([&mut self.head]) {
            let mut kept = kept.iter();
            cells.retain(|_| kept.next().is_some_and(|&kept| kept));
        }
        self
    }

    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let line = |cells: &[String]| {
            // A bar would end the cell.
            let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', r"\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        text += &line(&self.head);
        text += "|";
        for column in 0..self.head.len() {
            text += if column < self.words { "---|" } else { "--:|" };
        }
        text += "\n";
        for row in &self.rows {
            text += &line(row);
        }
        text
    }

    pub fn text(&self) -> String {
        let mut grid = Grid::new();
        grid.load_preset(presets::NOTHING).add_rows(&self.rows);
        if self.head.iter().any(|head| !head.is_empty()) {
            grid.set_header(&self.head)
                .set_style(TableComponent::HeaderLines, '-');
        }
        let last = self.head.len() - 1;
        for (index, column) in grid.column_iter_mut().enumerate() {
            column.set_padding((0, if index < last { GAP } else { 0 }));
            if index >= self.words {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        grid.trim_fmt() + "\n"
    }
}

/// A number as a cell.
pub fn cell(value: Option<f64>, decimals: usize) -> String {
    match value.filter(|value| value.is_finite()) {
        Some(value) => format!("{value:.decimals$}"),
        None => NOTHING.into(),
    }
}

/// A ratio as a cell, if it is one.
pub fn ratio_cell(ratio: Ratio) -> String {
    match ratio {
        Ratio::None => NOTHING.into(),
        Ratio::TooFewRounds => "too few rounds".into(),
        Ratio::Of(spread) => spread_cell(Some(spread), 2),
    }
}

/// Median, minimum and maximum as a cell.
pub fn spread_cell(spread: Option<Spread>, decimals: usize) -> String {
    let Some(Spread { median, min, max }) = spread else {
        return NOTHING.into();
    };
    let [median, min, max] = [median, min, max].map(|value| format!("{value:.decimals$}"));
    if min == max {
        return median;
    }
    format!("{median} ({min}–{max})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_right_and_empty_columns_go() {
        let mut table = Table::new(["name", "a", "b"]);
        table.row(["x", NOTHING, "1"]);
        table.row(["y|z", NOTHING, "µ10"]);
        let table = table.without_empty_columns();
        assert_eq!(table.text(), "name    b\n---------\nx       1\ny|z   µ10\n");
        assert_eq!(
            table.markdown(),
            "| name | b |\n|---|--:|\n| x | 1 |\n| y\\|z | µ10 |\n"
        );
    }

    #[test]
    fn without_a_head_there_is_no_rule() {
        let mut table = Table::new(["", ""]).of_words(2);
        table.row(["guests", "two"]);
        assert_eq!(table.text(), "guests  two\n");
        assert_eq!(
            table.without(&["b"]).markdown(),
            "|  |  |\n|---|---|\n| guests | two |\n"
        );
    }

    #[test]
    fn one_round_has_no_spread() {
        let spread = |min, max| {
            Some(Spread {
                median: 2.0,
                min,
                max,
            })
        };
        assert_eq!(spread_cell(spread(1.0, 3.0), 1), "2.0 (1.0–3.0)");
        assert_eq!(spread_cell(spread(2.0, 2.0), 2), "2.00");
        assert_eq!(spread_cell(None, 2), "–");
    }
}
