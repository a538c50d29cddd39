//! Reasoning that a server leaves in the text, between `<think>` and `</think>` at its start: lifted out, however the
//! pieces of a stream are cut.

/// Most bytes that are held: a longer run of white space is told as it is.
const HELD: usize = 4096;

/// A piece of the text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Reasoning(String),
    Text(String),
}

/// Where in the text we are.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Nothing but white space and perhaps a part of the opening tag has come.
    Start,
    /// Behind the opening tag, and the white space that follows it.
    Opened,
    /// In the reasoning.
    Inside,
    /// Behind the closing tag, in the white space that follows it.
    Closed,
}

/// Lifts reasoning out of the text of one choice.
#[derive(Debug)]
pub(super) struct Lift {
    open: String,
    close: String,
    state: State,
    /// What cannot be told yet.
    held: String,
}

impl Lift {
    /// For reasoning between `<tag>` and `</tag>`.
    pub(super) fn new(tag: &str) -> Self {
        Lift { open: format!("<{tag}>"), close: format!("</{tag}>"), state: State::Start, held: String::new() }
    }

    /// Takes more text. False where all that follows is plain text.
    pub(super) fn push(&mut self, text: &str, out: &mut Vec<Piece>) -> bool {
        self.held.push_str(text);
        loop {
            match self.state {
                State::Start => {
                    let trimmed = self.held.trim_start();
                    if let Some(rest) = trimmed.strip_prefix(&self.open) {
                        self.held = rest.to_owned();
                        self.state = State::Opened;
                    } else if self.open.starts_with(trimmed) && self.held.len() <= HELD {
                        return true;
                    } else {
                        out.push(Piece::Text(std::mem::take(&mut self.held)));
                        return false;
                    }
                }
                State::Opened => {
                    self.held = self.held.trim_start().to_owned();
                    if self.held.is_empty() {
                        return true;
                    }
                    self.state = State::Inside;
                }
                State::Inside => {
                    if let Some((thought, rest)) = self.held.split_once(&self.close) {
                        let thought = thought.trim_end();
                        if !thought.is_empty() {
                            out.push(Piece::Reasoning(thought.to_owned()));
                        }
                        self.held = rest.to_owned();
                        self.state = State::Closed;
                        continue;
                    }
                    // White space in front of the closing tag is not told either, so both are held.
                    let cut = (0..self.close.len())
                        .rev()
                        .find(|length| self.close.get(..*length).is_some_and(|start| self.held.ends_with(start)));
                    let kept = self.held.len() - cut.unwrap_or(0);
                    let end = self.held.get(..kept).map_or(0, |text| text.trim_end().len());
                    let end = if self.held.len() - end > HELD { kept } else { end };
                    let rest = self.held.split_off(end);
                    let thought = std::mem::replace(&mut self.held, rest);
                    if !thought.is_empty() {
                        out.push(Piece::Reasoning(thought));
                    }
                    return true;
                }
                State::Closed => {
                    let text = self.held.trim_start();
                    if text.is_empty() {
                        self.held.clear();
                        return true;
                    }
                    out.push(Piece::Text(text.to_owned()));
                    self.held.clear();
                    return false;
                }
            }
        }
    }

    /// The text has ended: what was held.
    pub(super) fn finish(mut self) -> Vec<Piece> {
        let held = std::mem::take(&mut self.held);
        match self.state {
            _ if held.is_empty() => Vec::new(),
            State::Start => vec![Piece::Text(held)],
            State::Opened | State::Closed => Vec::new(),
            State::Inside => vec![Piece::Reasoning(held)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reasoning and text of these pieces.
    fn lifted(pieces: &[&str]) -> (String, String) {
        let mut lift = Some(Lift::new("think"));
        let mut out = Vec::new();
        for piece in pieces {
            match &mut lift {
                Some(open) => {
                    if !open.push(piece, &mut out) {
                        lift = None;
                    }
                }
                None => out.push(Piece::Text((*piece).to_owned())),
            }
        }
        out.extend(lift.map(Lift::finish).unwrap_or_default());
        let (mut thought, mut text) = (String::new(), String::new());
        for piece in out {
            match piece {
                Piece::Reasoning(piece) => thought.push_str(&piece),
                Piece::Text(piece) => text.push_str(&piece),
            }
        }
        (thought, text)
    }

    #[test]
    fn a_tag_at_the_start_is_lifted_wherever_the_text_is_cut() {
        for (whole, thought, text) in [
            (
                "<think>\nI weigh </ it.\n\nGrüße\n</think>\n\nIt is <think>4</think>.",
                "I weigh </ it.\n\nGrüße",
                "It is <think>4</think>.",
            ),
            ("\n <think></think>4", "", "4"),
            ("<thin ice", "", "<thin ice"),
            ("plain <think>x</think>", "", "plain <think>x</think>"),
            ("<think>cut off </thi", "cut off </thi", ""),
            ("  ", "", "  "),
        ] {
            let expected = (thought.to_owned(), text.to_owned());
            let characters: Vec<String> = whole.chars().map(String::from).collect();
            let characters: Vec<&str> = characters.iter().map(String::as_str).collect();
            assert_eq!(lifted(&characters), expected, "{whole:?}");
            for (cut, _) in whole.char_indices() {
                assert_eq!(lifted(&[&whole[..cut], &whole[cut..]]), expected, "{whole:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn no_more_than_a_bound_is_held() {
        let mut lift = Lift::new("think");
        let mut out = Vec::new();
        let space = " ".repeat(HELD + 1);
        assert!(lift.push("<think>x", &mut out));
        assert!(lift.push(&space, &mut out));
        assert_eq!(out, [Piece::Reasoning("x".into()), Piece::Reasoning(space.clone())]);
        assert!(!Lift::new("think").push(&space, &mut out));
    }
}
