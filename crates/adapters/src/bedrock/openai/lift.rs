//! Reasoning that a model writes into its content, between tags, is lifted out.

/// In front of the reasoning.
pub(super) const OPEN: &str = "<reasoning>";

/// Behind the reasoning.
pub(super) const CLOSE: &str = "</reasoning>";

/// A piece of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// For the user.
    Text(&'a str),
    /// The model's reasoning.
    Reasoning(&'a str),
}

/// Where in the content the reader stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// At the start, or right behind the end of a reasoning.
    #[default]
    Start,
    /// In a reasoning.
    Inside,
    /// In text: from here on tags are text.
    Text,
}

/// Reads one content in pieces cut anywhere. It never keeps more than a part of a tag.
#[derive(Debug, Default)]
pub(super) struct Lift {
    place: Place,
    /// Characters of the tag that was met so far.
    met: usize,
}

impl Lift {
    /// The next piece of the content.
    pub fn push(&mut self, mut text: &str, mut out: impl FnMut(Piece<'_>)) {
        while !text.is_empty() {
            match self.place {
                Place::Text => {
                    out(Piece::Text(text));
                    return;
                }
                Place::Start => {
                    let wanted = OPEN.get(self.met..).unwrap_or_default();
                    let same = common(wanted, text);
                    if same == wanted.len() {
                        self.met = 0;
                        self.place = Place::Inside;
                    } else if same == text.len() {
                        self.met += same;
                    } else {
                        self.place = Place::Text;
                        if let Some(held) = OPEN.get(..std::mem::take(&mut self.met)).filter(|held| !held.is_empty()) {
                            out(Piece::Text(held));
                        }
                        continue;
                    }
                    text = text.get(same..).unwrap_or_default();
                }
                Place::Inside => text = self.inside(text, &mut out),
            }
        }
    }

    /// Up to the end tag, if it is there; gives what is behind it.
    fn inside<'t>(&mut self, text: &'t str, out: &mut impl FnMut(Piece<'_>)) -> &'t str {
        if self.met > 0 {
            let wanted = CLOSE.get(self.met..).unwrap_or_default();
            let same = common(wanted, text);
            let rest = text.get(same..).unwrap_or_default();
            if same == wanted.len() {
                self.met = 0;
                self.place = Place::Start;
                return rest;
            }
            if rest.is_empty() {
                self.met += same;
                return rest;
            }
            // No `<` but the first is in the tag: what was held cannot begin it anew.
            out(Piece::Reasoning(CLOSE.get(..std::mem::take(&mut self.met)).unwrap_or_default()));
            return text;
        }
        let mut from = 0;
        while let Some(found) = text.get(from..).and_then(|rest| rest.find('<')) {
            let at = from + found;
            let tail = text.get(at..).unwrap_or_default();
            let same = common(CLOSE, tail);
            let whole = same == CLOSE.len();
            if whole || same == tail.len() {
                if let Some(thought) = text.get(..at).filter(|thought| !thought.is_empty()) {
                    out(Piece::Reasoning(thought));
                }
                if whole {
                    self.place = Place::Start;
                } else {
                    self.met = same;
                }
                return tail.get(same..).unwrap_or_default();
            }
            from = at + 1;
        }
        out(Piece::Reasoning(text));
        ""
    }

    /// The content has ended: what was held is no tag.
    pub fn end(&mut self, mut out: impl FnMut(Piece<'_>)) {
        let met = std::mem::take(&mut self.met);
        match self.place {
            Place::Start if met > 0 => out(Piece::Text(OPEN.get(..met).unwrap_or_default())),
            Place::Inside if met > 0 => out(Piece::Reasoning(CLOSE.get(..met).unwrap_or_default())),
            _ => {}
        }
    }
}

/// Length of what both begin with. `tag` is ASCII, so it ends between characters of `text`.
fn common(tag: &str, text: &str) -> usize {
    tag.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reasoning and text of a content that comes in these pieces.
    fn lifted(pieces: &[&str]) -> (String, String) {
        let (mut lift, mut thought, mut said) = (Lift::default(), String::new(), String::new());
        let mut take = |piece: Piece<'_>| match piece {
            Piece::Text(text) => said.push_str(text),
            Piece::Reasoning(text) => thought.push_str(text),
        };
        for piece in pieces {
            lift.push(piece, &mut take);
        }
        lift.end(&mut take);
        (thought, said)
    }

    #[test]
    fn a_content_cut_anywhere_is_read_alike() {
        let contents = [
            ("<reasoning>We <b> </reason it</reasoning>Hi </reasoning>", "We <b> </reason it", "Hi </reasoning>"),
            ("<reasoning>a</reasoning><reasoning>é<</reasoning>\n\nYes", "aé<", "\n\nYes"),
            ("<reasoning>a</<</reasoning>b", "a</<", "b"),
            ("<reason>ing", "", "<reason>ing"),
            ("<reason", "", "<reason"),
            ("<reasoning>cut</reaso", "cut</reaso", ""),
            ("Use <reasoning>x</reasoning>", "", "Use <reasoning>x</reasoning>"),
            ("<reasoning></reasoning>", "", ""),
            ("<<reasoning>x", "", "<<reasoning>x"),
            ("", "", ""),
        ];
        for (content, thought, said) in contents {
            let wanted = (thought.to_owned(), said.to_owned());
            assert_eq!(lifted(&[content]), wanted, "{content}");
            let characters: Vec<String> = content.chars().map(String::from).collect();
            assert_eq!(lifted(&characters.iter().map(String::as_str).collect::<Vec<_>>()), wanted, "{content}");
            for (cut, _) in content.char_indices() {
                let (left, right) = content.split_at(cut);
                assert_eq!(lifted(&[left, right]), wanted, "{content} cut at {cut}");
            }
        }
    }
}
