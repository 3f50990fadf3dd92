//! Hostile text made harmless.
//!
//! Thread names, command lines and paths come from pods: a compromised one can put anything into them, terminal
//! control sequences and text that reads backwards included.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The text with everything that could act on a terminal, or make a line read as something else, turned into visible
/// escapes: control characters (ESC, newline and the C1 set included), bidirectional overrides, invisible characters
/// and line separators become `\n`, `\x1b` or `\u{202e}`. A backslash becomes two, so that no escape can be forged.
#[must_use]
pub fn terminal(text: &str) -> Cow<'_, str> {
    if !text.chars().any(needs_escape) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if needs_escape(c) {
            push_escape(&mut escaped, c);
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// JSON that means the same, without characters beyond those that JSON escapes anyway which a terminal obeys: DEL, C1
/// controls, and direction marks. Outside of strings JSON has none of these.
#[must_use]
pub fn json(json: &str) -> Cow<'_, str> {
    let acts = |c: char| matches!(c, '\u{7f}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !json.contains(acts) {
        return Cow::Borrowed(json);
    }
    let mut safe = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if acts(c) {
            let result = write!(safe, "\\u{:04x}", u32::from(c));
            debug_assert!(result.is_ok(), "writing to a String does not fail");
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

fn push_escape(out: &mut String, c: char) {
    let result = match c {
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        '\\' => out.write_str("\\\\"),
        c if u32::from(c) <= 0xff => write!(out, "\\x{:02x}", u32::from(c)),
        c => write!(out, "\\u{{{:x}}}", u32::from(c)),
    };
    debug_assert!(result.is_ok(), "writing to a String does not fail");
}

/// Unicode 16: general categories Cc, Zl and Zp, the `Bidi_Control` property, and the zero-width, tag and
/// interlinear characters of category Cf.
fn needs_escape(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\\' | '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_harmless_stays() {
        for text in ["", "CPU 0/KVM", "mig/src/main", "Größe 日本"] {
            assert!(matches!(terminal(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn what_acts_becomes_visible() {
        assert_eq!(terminal("\u{1b}]0;x\u{7}"), "\\x1b]0;x\\x07");
        assert_eq!(terminal("a\nb\r\t\\"), "a\\nb\\r\\t\\\\");
        assert_eq!(terminal("\u{9b}31m"), "\\x9b31m");
        assert_eq!(terminal("\u{202e}mvk"), "\\u{202e}mvk");
    }

    #[test]
    fn json_means_the_same_and_acts_on_no_terminal() {
        let text = "a\u{9b}31m\u{202e}b\u{7f}é";
        let json = serde_json::to_string(text).unwrap();
        let safe = super::json(&json);
        assert_eq!(safe, r#""a\u009b31m\u202eb\u007fé""#);
        assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), text);
    }

    proptest! {
        #[test]
        fn nothing_that_acts_is_left(text in any::<String>()) {
            let escaped = terminal(&text);
            let acts = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
            prop_assert!(!escaped.chars().any(acts));
        }

        #[test]
        fn different_texts_stay_different(a in "[\\\\xn\n0-9a-b]{0,8}", b in "[\\\\xn\n0-9a-b]{0,8}") {
            prop_assert_eq!(a == b, terminal(&a) == terminal(&b));
        }
    }
}
