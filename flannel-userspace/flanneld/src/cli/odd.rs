//! What people type, or copy, without seeing it.

/// What is odd about the name or value of a flag: characters that cannot be seen, and quotes that no shell has removed, as
/// those in a file of variables that is not read by one.
pub(super) fn oddity(text: &str) -> Option<String> {
    if let Some((number, character)) = text.chars().enumerate().find(|(_, character)| is_unseen(*character)) {
        let what = match character {
            '\r' => "a carriage return, as files of Windows have at the end of a line".to_owned(),
            _ => format!("the invisible character U+{:04X}", u32::from(character)),
        };
        return Some(format!("has {what}, behind its first {number} characters: write it again without"));
    }
    let is_quoted = |quote: char| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
    if is_quoted('"') || is_quoted('\'') || text.starts_with('\u{201c}') {
        return Some("is in quotes that nothing has removed: leave them out".to_owned());
    }
    None
}

/// What is odd about a word that does not begin like a flag.
pub(super) fn odd_dash(word: &str) -> Option<String> {
    let dash = word.chars().next().filter(|first| matches!(first, '\u{2010}'..='\u{2015}' | '\u{2212}'))?;
    let begin = u32::from(dash);
    Some(format!("it begins with the dash U+{begin:04X}, as word processors make of two hyphens; write --"))
}

/// Control characters, and those of Unicode's categories Cf and Zs that look like nothing or like a blank.
fn is_unseen(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{a0}' | '\u{ad}' | '\u{180e}' | '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}'
                | '\u{3000}' | '\u{feff}'
        )
}
