//! Tables for people.

use std::io::{self, Write as _};

use anyhow::Result;
use comfy_table::{CellAlignment, Table as Grid, presets};

use super::color::{self, Color, paint};

/// Between columns.
const GAP: u16 = 2;

/// What a cell says that has nothing to say.
pub const NOTHING: &str = "-";

/// Columns of the terminal that standard output is, if it is one.
fn terminal_columns() -> Option<usize> {
    terminal_size::terminal_size_of(io::stdout()).map(|(columns, _)| columns.0.into())
}

/// The colour of a cell, by its text.
type Paint = fn(&str) -> Color;

/// Rows in columns as wide as their widest cell. Columns are left-aligned up to `left`, then right-aligned. On a terminal
/// that has not so many columns, each row has a line for every cell, and an empty one behind them.
pub struct Table {
    rows: Vec<Vec<String>>,
    left: usize,
    paints: Vec<(usize, Paint)>,
}

impl Table {
    pub fn new(left: usize, heads: &[&str]) -> Self {
        Self {
            rows: vec![heads.iter().map(ToString::to_string).collect()],
            left,
            paints: Vec::new(),
        }
    }

    /// Prints the cells of a column in colours.
    pub fn paint(mut self, column: usize, paint: Paint) -> Self {
        self.paints.push((column, paint));
        self
    }

    /// Prints the cells of these columns as names of devices.
    pub fn names(self, columns: impl IntoIterator<Item = usize>) -> Self {
        let name: Paint = |_| Color::Name;
        columns
            .into_iter()
            .fold(self, |table, column| table.paint(column, name))
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether it has heads alone.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// Leaves out a column in which no row has anything to say. Columns before it keep their places.
    pub fn without_if_empty(mut self, column: usize) -> Self {
        if self.rows.iter().skip(1).all(|row| row[column] == NOTHING) {
            for row in &mut self.rows {
                row.remove(column);
            }
        }
        self
    }

    pub fn print(&self) -> Result<()> {
        self.lay_out().print()
    }

    /// Says where everything goes; takes its time with tens of thousands of rows.
    pub fn lay_out(&self) -> LaidOut<'_> {
        LaidOut {
            table: self,
            text: layout(&self.rows, self.left),
        }
    }

    fn print_upright(&self) -> Result<()> {
        let mut out = io::stdout().lock();
        let (heads, rows) = self.rows.split_first().expect("a row of heads");
        for row in rows {
            let lines: Vec<_> = heads
                .iter()
                .zip(row)
                .map(|(head, cell)| vec![format!("  {}", head.trim()), cell.trim().to_owned()])
                .collect();
            for (column, (line, row)) in layout(&lines, 2).lines().zip(&lines).enumerate() {
                let paint = self.paints.iter().find(|(painted, _)| *painted == column);
                let paint: Vec<_> = paint.map(|&(_, paint)| (1, paint)).into_iter().collect();
                writeln!(out, "{}", painted(line, row, &paint))?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

/// A table that has only to be written.
pub struct LaidOut<'table> {
    table: &'table Table,
    text: String,
}

impl LaidOut<'_> {
    pub fn print(&self) -> Result<()> {
        let Self { table, text } = self;
        let width = text.lines().map(|line| line.chars().count()).max();
        if terminal_columns().is_some_and(|columns| width > Some(columns)) {
            return table.print_upright();
        }
        let mut out = io::stdout().lock();
        for (index, (line, row)) in text.lines().zip(&table.rows).enumerate() {
            let paints = if index == 0 { &[][..] } else { &table.paints };
            writeln!(out, "{}", painted(line, row, paints))?;
        }
        Ok(())
    }
}

/// Without lines, and never wrapped.
fn layout(rows: &[Vec<String>], left: usize) -> String {
    let mut grid = Grid::new();
    grid.load_preset(presets::NOTHING).add_rows(rows);
    for (index, column) in grid.column_iter_mut().enumerate() {
        column.set_padding((0, GAP));
        if index >= left {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    grid.trim_fmt()
}

/// A line with these cells, some of them in colours. Between two of them are only blanks, so that the next that says the same
/// is the cell.
fn painted(line: &str, cells: &[String], paints: &[(usize, Paint)]) -> String {
    if paints.is_empty() || !color::is_wanted() {
        return line.to_owned();
    }
    let mut text = String::new();
    let mut rest = line;
    for (column, cell) in cells.iter().enumerate() {
        let cell = cell.trim();
        let Some(place) = rest.find(cell) else { break };
        let (before, behind) = rest.split_at(place);
        text.push_str(before);
        match paints.iter().find(|(painted, _)| *painted == column) {
            Some((_, color)) if cell != NOTHING => text.push_str(&paint(cell, color(cell))),
            _ => text.push_str(cell),
        }
        rest = &behind[cell.len()..];
    }
    text.push_str(rest);
    text
}
