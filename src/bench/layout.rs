//! Lays the comparison out for a terminal: aligned columns, and bars.

use std::fmt::Write;

use indicatif::HumanCount;

/// Rows a second for people.
pub fn told(rate: Option<f64>) -> String {
    rate.map_or("-".to_string(), |rate| HumanCount(rate as u64).to_string())
}

/// Rows as lines with aligned columns: names to the left, figures to the right.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            let _ = match column {
                0 => write!(text, "{cell:<width$}"),
                _ => write!(text, "  {cell:>width$}"),
            };
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

/// One rung of the ladder.
pub struct Bar {
    pub name: &'static str,
    /// Rows a second; `None`: no figure.
    pub rate: Option<f64>,
    /// Whether it is what nothing can be faster than.
    pub floor: bool,
}

/// Bars on a logarithmic scale: each tenth of the width is the same factor.
pub fn ladder(bars: &[Bar]) -> String {
    const WIDTH: f64 = 50.0;
    if bars.iter().all(|bar| bar.rate.is_none()) {
        return String::new();
    }
    let figure = |bar: &Bar| bar.rate.map(|rate| rate.max(1.0));
    let rates = bars.iter().filter_map(figure);
    let most = rates.clone().fold(1.0, f64::max).log10();
    // The scale starts at a power of ten below the slowest rung.
    let least = (rates.fold(f64::MAX, f64::min).log10() - 0.3)
        .floor()
        .max(0.0);
    let name_width = bars.iter().map(|bar| bar.name.len()).max().unwrap_or(0);
    let mut text = format!(
        "rows/s, logarithmic from {}\n",
        HumanCount(10f64.powf(least) as u64)
    );
    for bar in bars {
        let Some(rate) = figure(bar) else {
            let _ = writeln!(text, "{:<name_width$}  -", bar.name);
            continue;
        };
        let share = (rate.log10() - least) / (most - least).max(f64::EPSILON);
        let length = (share * WIDTH).round().max(1.0) as usize;
        let drawn = if bar.floor { "░" } else { "█" }.repeat(length);
        let rate = HumanCount(rate as u64);
        let _ = writeln!(text, "{:<name_width$}  {drawn} {rate}", bar.name);
    }
    text
}
