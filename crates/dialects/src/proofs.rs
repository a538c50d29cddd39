//! Several pieces of reasoning, each with its own proof, in OpenAI's shape, which has one text for all of them.
//!
//! A signature counts for the text of its own piece, and a backend takes reasoning back only as it gave it. So the places
//! where one piece ends and the next begins stand among the proofs, which are opaque to clients and never hold a space:
//! - `reasoning_signature` is the signature of the first piece, and for each further one a space, the place where it begins
//!   in the text of all, a space, and its signature. A piece without one has none there. Of one piece it is the signature.
//! - `reasoning_encrypted_content` is the first encrypted piece; where reasoning follows it, a space and its place in the text
//!   of all; and for each further one a space and the same.
//!
//! Places are counted in bytes of UTF-8. What is not of this form is one piece with one proof.

use witgate_model::{Part, ReasoningPart};

/// What was said of the proofs of one choice so far.
#[derive(Debug, Default)]
pub(crate) struct Proofs {
    /// The length of the text of all.
    text: usize,
    /// The block whose text goes on, and whether there was one at all.
    piece: Option<u32>,
    /// Where pieces begin that were not told yet.
    begun: Vec<usize>,
    /// A signature was told.
    signed: bool,
    /// The last encrypted block.
    encrypted: Option<u32>,
    /// Its place, until that was told.
    place: Option<usize>,
}

impl Proofs {
    /// A piece of text or of a signature of a block comes; what is told before of encrypted reasoning.
    pub(crate) fn begin(&mut self, block: u32) -> Option<String> {
        if self.piece == Some(block) {
            return None;
        }
        if self.piece.replace(block).is_some() {
            self.begun.push(self.text);
        }
        self.place.take().map(|place| format!(" {place}"))
    }

    /// Text has come.
    pub(crate) fn text(&mut self, length: usize) {
        self.text += length;
    }

    /// A piece of a signature, with what is told before it.
    pub(crate) fn signature(&mut self, text: &str) -> String {
        self.signed = true;
        let mut told = self.places();
        told.push_str(text);
        told
    }

    /// What is told when a block ends: that it had no signature, where others have one.
    pub(crate) fn end(&mut self) -> Option<String> {
        (self.signed && !self.begun.is_empty()).then(|| self.places())
    }

    fn places(&mut self) -> String {
        self.begun.drain(..).map(|place| format!(" {place} ")).collect()
    }

    /// A piece of encrypted reasoning, with what is told before it.
    pub(crate) fn encrypted(&mut self, block: u32, text: &str) -> String {
        if self.encrypted == Some(block) {
            return text.to_owned();
        }
        let first = self.encrypted.replace(block).is_none();
        match self.place.replace(self.text) {
            Some(place) => format!(" {place} {text}"),
            None if first => text.to_owned(),
            None => format!(" {text}"),
        }
    }
}

/// The pieces of reasoning that a message has, in their order.
pub(crate) fn pieces(text: Option<String>, signature: Option<String>, encrypted: Option<String>) -> Vec<Part> {
    let several = |proof: &Option<String>| proof.as_ref().is_some_and(|proof| proof.contains(' '));
    if (several(&signature) || several(&encrypted))
        && let Some(parts) = split(text.as_deref().unwrap_or_default(), signature.as_deref(), encrypted.as_deref())
        // What would be told in another way is not of our form, and goes back as it came.
        && told(&parts) == (signature.clone(), encrypted.clone())
    {
        return parts.into_iter().map(Part::Reasoning).collect();
    }
    let mut parts = Vec::new();
    if text.is_some() || signature.is_some() {
        let text = text.unwrap_or_default();
        parts.push(Part::Reasoning(ReasoningPart { text, signature, ..ReasoningPart::default() }));
    }
    if encrypted.is_some() {
        parts.push(Part::Reasoning(ReasoningPart { redacted: encrypted, ..ReasoningPart::default() }));
    }
    parts
}

/// The pieces, where all of it is of our form.
fn split(text: &str, signature: Option<&str>, encrypted: Option<&str>) -> Option<Vec<ReasoningPart>> {
    // Where each stands, and whether behind another one in the same place.
    let mut pieces = Vec::new();
    if !text.is_empty() || signature.is_some() {
        pieces
            .extend(signed(text, signature.unwrap_or_default())?.into_iter().map(|(place, part)| (place, true, part)));
    }
    if let Some(encrypted) = encrypted {
        let part = |told: &str| ReasoningPart { redacted: Some(told.to_owned()), ..ReasoningPart::default() };
        pieces.extend(placed(encrypted)?.into_iter().map(|(place, told)| (place, false, part(told))));
    }
    pieces.sort_by_key(|(place, behind, _)| (*place, *behind));
    Some(pieces.into_iter().map(|(.., part)| part).collect())
}

/// What is told of pieces: the signatures, and what is encrypted.
fn told(parts: &[ReasoningPart]) -> (Option<String>, Option<String>) {
    let (mut signature, mut encrypted) = (None::<String>, None::<String>);
    let mut proofs = Proofs::default();
    for (block, part) in (0..).zip(parts) {
        if let Some(redacted) = &part.redacted {
            encrypted.get_or_insert_default().push_str(&proofs.encrypted(block, redacted));
            continue;
        }
        if let Some(place) = proofs.begin(block) {
            encrypted.get_or_insert_default().push_str(&place);
        }
        proofs.text(part.text.len());
        let proof = part.signature.as_ref().map(|proof| proofs.signature(proof));
        for told in proof.into_iter().chain(proofs.end()) {
            signature.get_or_insert_default().push_str(&told);
        }
    }
    (signature, encrypted)
}

/// The pieces that a signature tells of, each with its place.
fn signed(text: &str, signature: &str) -> Option<Vec<(usize, ReasoningPart)>> {
    let mut told = signature.split(' ');
    let mut pieces = vec![(0, told.next()?)];
    while let Some(place) = told.next() {
        pieces.push((place.parse().ok()?, told.next()?));
    }
    let ends = pieces.iter().skip(1).map(|(place, _)| *place).chain([text.len()]).collect::<Vec<_>>();
    let part = |((from, proof), to): (&(usize, &str), usize)| {
        let signature = (!proof.is_empty()).then(|| (*proof).to_owned());
        let text = text.get(*from..to)?.to_owned();
        Some((*from, ReasoningPart { text, signature, ..ReasoningPart::default() }))
    };
    pieces.iter().zip(ends).map(part).collect()
}

/// The encrypted pieces with their places.
fn placed(encrypted: &str) -> Option<Vec<(usize, &str)>> {
    let told: Vec<&str> = encrypted.split(' ').collect();
    let place = |pair: &[&str]| pair.get(1).map_or(Ok(usize::MAX), |place| place.parse());
    told.chunks(2).map(|pair| Some((place(pair).ok()?, *pair.first()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &str, signature: &str, redacted: &str) -> ReasoningPart {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (signature, redacted) = (some(signature), some(redacted));
        ReasoningPart { text: text.to_owned(), signature, redacted, ..ReasoningPart::default() }
    }

    fn pieces(text: &str, (signature, encrypted): (Option<String>, Option<String>)) -> Vec<ReasoningPart> {
        let text = (!text.is_empty()).then(|| text.to_owned());
        let part = |part| match part {
            Part::Reasoning(part) => part,
            other => panic!("{other:?}"),
        };
        super::pieces(text, signature, encrypted).into_iter().map(part).collect()
    }

    #[test]
    fn pieces_of_reasoning_come_back_each_with_its_own_proof() {
        let all = [
            vec![part("a", "s", "")],
            vec![part("a", "", "")],
            vec![part("", "s=t", "")],
            vec![part("", "", "r=t")],
            vec![part("é", "s=", ""), part("b", "t=u", ""), part("", "v", "")],
            vec![part("a", "", ""), part("b", "t", "")],
            vec![part("a", "s", ""), part("b", "", ""), part("c", "u", ""), part("d", "", "")],
            vec![part("", "", "r"), part("a", "s", "")],
            vec![part("a", "s", ""), part("", "", "r")],
            vec![part("", "", "r="), part("", "", "q"), part("a", "s", ""), part("", "", "p=o"), part("b", "t", "")],
            vec![part("a", "s", ""), part("", "", "r"), part("", "", "q")],
        ];
        for parts in all {
            let text: String = parts.iter().map(|part| part.text.as_str()).collect();
            assert_eq!(pieces(&text, told(&parts)), parts, "{:?}", told(&parts));
        }
        assert_eq!(told(&[part("ab", "s=", ""), part("c", "t", "")]).0.as_deref(), Some("s= 2 t"));
        assert_eq!(told(&[part("", "", "r"), part("a", "s", "")]).1.as_deref(), Some("r 0"));
        // However a proof is cut.
        let mut proofs = Proofs::default();
        let told = [proofs.signature("s"), proofs.signature("="), proofs.encrypted(1, "r"), proofs.encrypted(1, "=")];
        assert_eq!(told, ["s", "=", "r", "="]);
    }

    #[test]
    fn what_is_not_of_that_form_is_one_piece_with_one_proof() {
        for signature in ["s t", "s 1", "s 1 ", "s 9 t", "s 2 t 1 u", "s -1 t", " ", "s x t", "s 02 t"] {
            assert_eq!(pieces("éa", (Some(signature.into()), None)), [part("éa", signature, "")], "{signature}");
        }
        for encrypted in ["r x", "r 9", "r 3", "r  q", "r 00"] {
            let expected = [part("éa", "s", ""), part("", "", encrypted)];
            assert_eq!(pieces("éa", (Some("s".into()), Some(encrypted.into()))), expected, "{encrypted}");
        }
        assert_eq!(pieces("", (None, None)), []);
    }
}
