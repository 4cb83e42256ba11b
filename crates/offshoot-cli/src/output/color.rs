//! Colours, few and with a meaning: a target's name is cyan before its output and red before its error output.

use clap::builder::styling::{AnsiColor, Style};

/// The styles in use; all empty when colours are off.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Palette {
    /// A target's name before its output.
    pub(crate) name: Style,
    /// A target's name before its error output.
    pub(crate) error_name: Style,
    /// `error:`.
    pub(crate) error: Style,
    /// What is said beside the matter.
    pub(crate) faint: Style,
}

impl Palette {
    /// With colours, or without.
    pub(crate) fn new(colored: bool) -> Palette {
        if !colored {
            return Palette::default();
        }
        Palette {
            name: AnsiColor::Cyan.on_default(),
            error_name: AnsiColor::Red.on_default(),
            error: AnsiColor::Red.on_default().bold(),
            faint: Style::new().dimmed(),
        }
    }
}
