//! `docs/sizes.md`: what each agent weighs, so that growth shows in a diff.

use std::path::Path;

use anyhow::{Context as _, Result};
use offshoot_build::agent::Built;
use offshoot_build::toolchain::Recipe;

const HEAD: &str = "\
# Sizes

What is sent to a target, per triple, in bytes. Written by `cargo xtask agents --write-sizes`. *Sent* is the agent as it
travels (packed by LZMA); *raw* is its executable in the target's memory. Stage 0 travels as text in the line that starts
it.

";

const COLUMNS: &str = "
| triple | recipe | raw | sent | budget | stage 0 | stage 1 | rustc |
|---|---|--:|--:|--:|--:|--:|---|
";

/// The loader's budget as it is checked, so that the page cannot say something else.
fn budgets() -> String {
    format!(
        "Every `cargo xtask agents` checks the budgets: of each agent as sent, by the recipe it was built by; of the \
         loader's two\nstages together {} KiB.\n",
        super::LOADER_BUDGET / super::KIB
    )
}

/// Rewrites the table: new rows for what was built, the old ones for the other triples.
///
/// # Errors
///
/// When the file cannot be read or written.
pub(super) fn write(path: &Path, built: &[Built]) -> Result<()> {
    let old = std::fs::read_to_string(path).unwrap_or_default();
    let rows: Vec<Row> = built.iter().map(Row::of).collect();
    std::fs::write(path, table(&old, &rows)).with_context(|| format!("cannot write {}", path.display()))
}

/// A line of the table.
struct Row {
    triple: &'static str,
    line: String,
}

impl Row {
    fn of(built: &Built) -> Row {
        let numbers = [built.raw, built.sent, built.stage0, built.stage1];
        Row::with(built.triple, built.recipe, numbers, &built.rustc)
    }

    fn with(triple: &'static str, recipe: Recipe, [raw, sent, stage0, stage1]: [usize; 4], rustc: &str) -> Row {
        let (budget, recipe) = (super::budget(recipe, triple), recipe.name());
        let line = format!("| {triple} | {recipe} | {raw} | {sent} | {budget} | {stage0} | {stage1} | {rustc} |");
        Row { triple, line }
    }
}

fn table(old: &str, built: &[Row]) -> String {
    let mut rows: Vec<(String, String)> = old
        .lines()
        .filter_map(|line| Some((line.strip_prefix("| ")?.split(' ').next()?, line)))
        .filter(|(triple, _)| triple.contains("-linux-"))
        .filter(|(triple, _)| !built.iter().any(|row| row.triple == *triple))
        .map(|(triple, line)| (triple.to_string(), line.to_string()))
        .collect();
    rows.extend(built.iter().map(|row| (row.triple.to_string(), row.line.clone())));
    rows.sort();
    let mut text = format!("{HEAD}{}{COLUMNS}", budgets());
    for (_, row) in rows {
        text.push_str(&row);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(triple: &'static str, raw: usize) -> Row {
        Row::with(triple, Recipe::APlus, [raw, 2, 3, 4], "1.95.0")
    }

    #[test]
    fn rows_of_other_triples_stay() {
        let first = table("", &[built("x86_64-unknown-linux-musl", 1), built("aarch64-unknown-linux-musl", 5)]);
        let second = table(&first, &[built("x86_64-unknown-linux-musl", 9)]);
        assert!(second.contains("| aarch64-unknown-linux-musl | a+ | 5 | 2 | 165888 | 3 | 4 | 1.95.0 |"));
        assert!(second.contains("| x86_64-unknown-linux-musl | a+ | 9 |"));
        assert!(!second.contains("| x86_64-unknown-linux-musl | a+ | 1 |"));
        assert_eq!(table(&second, &[]), second);
    }
}
