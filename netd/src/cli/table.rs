//! virsh's tables: each column as wide as its widest cell, one space before and two behind. Pure.

use unicode_width::UnicodeWidthStr;

/// The header, a line of dashes and the rows; every line ends in a newline and none in a space.
pub(super) fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = header.map(UnicodeWidthStr::width);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let mut text = line(header, &widths);
    let dashes: usize = widths.iter().map(|width| width + 3).sum();
    text.push_str(&"-".repeat(dashes));
    text.push('\n');
    for row in rows {
        text.push_str(&line(row.each_ref().map(String::as_str), &widths));
    }
    text
}

fn line<const N: usize>(cells: [&str; N], widths: &[usize; N]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.into_iter().zip(widths) {
        let padding = width.saturating_sub(cell.width()) + 2;
        line.push(' ');
        line.push_str(cell);
        line.extend(std::iter::repeat_n(' ', padding));
    }
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}
