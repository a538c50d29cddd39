//! The nearest right name for a wrong one, and lists of names for messages.

/// Longer names are not compared: the cost grows with the product of the lengths.
const LONGEST: usize = 128;

/// Names that people bring from elsewhere.
const KNOWN_ELSEWHERE: &[(&str, &str)] = &[
    ("url", "endpoint"),
    ("urls", "endpoints"),
    ("base_url", "endpoint"),
    ("api_base", "endpoint"),
    ("type", "adapter"),
    ("kind", "adapter"),
    ("key", "api_key"),
    ("token", "api_key"),
    ("keys", "api_keys"),
    ("timeout", "timeouts"),
    ("port", "listen"),
    ("host", "listen"),
    ("bind", "listen"),
    ("address", "listen"),
    ("workers", "threads"),
    ("file", "path"),
];

/// The candidate that `name` was probably meant to be: one that differs in case, in `-` for `_`, or in at most a third
/// of its letters, or of which it is the first word.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.is_empty() || name.len() > LONGEST {
        return None;
    }
    let plain = plain(name);
    let elsewhere = KNOWN_ELSEWHERE.iter().find(|(from, _)| *from == plain).map(|(_, to)| *to);
    let mut best: Option<(usize, &str)> = None;
    let candidates: Vec<&str> = candidates.into_iter().collect();
    for &candidate in &candidates {
        if candidate.len() > LONGEST {
            continue;
        }
        let other = self::plain(candidate);
        // The first word of a name is nearer than another name of about the same letters: "llama" is no "ollama".
        let begins = other.strip_prefix(&*plain).is_some_and(|rest| plain.len() > 2 && rest.starts_with(['-', '_']));
        let distance = if begins { 0 } else { strsim::damerau_levenshtein(&plain, &other) };
        let allowed = (candidate.chars().count() / 3).max(1);
        if distance <= allowed && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, name)| name).or_else(|| candidates.into_iter().find(|candidate| Some(*candidate) == elsewhere))
}

/// `did you mean "…"?`, where there is a near name.
pub(crate) fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, candidates).map(|near| format!("did you mean \"{near}\"?"))
}

/// `"a", "b" and "c"`, cut after ten.
pub(crate) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut quoted: Vec<String> = names.into_iter().take(11).map(|name| quote(name, 64)).collect();
    if quoted.len() > 10 {
        quoted.truncate(10);
        return format!("{}, …", quoted.join(", "));
    }
    match quoted.pop() {
        None => String::new(),
        Some(last) if quoted.is_empty() => last,
        Some(last) => format!("{} and {last}", quoted.join(", ")),
    }
}

/// The text in quotes, control characters escaped, cut after `longest` characters.
pub(crate) fn quote(text: &str, longest: usize) -> String {
    let mut cut: String = text.chars().take(longest).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    format!("{cut:?}")
}

fn plain(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}
