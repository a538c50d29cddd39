//! JSON for people, with the order of members and the spelling of numbers as they are.

/// The widest value that stays on one line.
const WIDTH: usize = 100;

/// Lays JSON out: what fits stays on one line, what does not is broken at its members.
pub fn pretty(json: &str) -> String {
    let compact = compact(json);
    let mut out = String::new();
    value(&compact, 0, &mut out);
    out
}

/// Without white space between tokens, but with a blank behind commas and colons.
fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut inside, mut escaped) = (false, false);
    for c in json.chars() {
        if inside {
            out.push(c);
            (inside, escaped) = (escaped || c != '"', !escaped && c == '\\');
        } else if !c.is_whitespace() {
            out.push(c);
            inside = c == '"';
            if matches!(c, ',' | ':') {
                out.push(' ');
            }
        }
    }
    out
}

fn value(text: &str, indent: usize, out: &mut String) {
    let broken = text.starts_with(['{', '[']) && indent + text.chars().count() > WIDTH;
    if !broken {
        out.push_str(text);
        return;
    }
    let (open, rest) = text.split_at(1);
    let (inner, close) = rest.split_at(rest.len() - 1);
    out.push_str(open);
    let members = split(inner);
    for (number, member) in members.iter().enumerate() {
        out.push('\n');
        out.push_str(&" ".repeat(indent + 2));
        let name = if open == "{" { name(member) } else { 0 };
        out.push_str(&member[..name]);
        value(&member[name..], indent + 2, out);
        if number + 1 < members.len() {
            out.push(',');
        }
    }
    out.push('\n');
    out.push_str(&" ".repeat(indent));
    out.push_str(close);
}

/// The members or elements of what stands between brackets.
fn split(inner: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut inside, mut escaped, mut start) = (0, false, false, 0);
    for (at, c) in inner.char_indices() {
        if inside {
            (inside, escaped) = (escaped || c != '"', !escaped && c == '\\');
            continue;
        }
        match c {
            '"' => inside = true,
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(inner[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(inner[start..].trim());
    parts
}

/// How long a member's name is, its colon and blank included.
fn name(member: &str) -> usize {
    let mut escaped = false;
    for (at, c) in member.char_indices().skip(1) {
        if c == '"' && !escaped {
            return at + 3;
        }
        escaped = c == '\\' && !escaped;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::pretty;

    #[test]
    fn what_fits_stays_on_its_line_and_what_does_not_is_broken() {
        assert_eq!(pretty(r#" {"a" : 1.50,"b":[ "\"," ]} "#), r#"{"a": 1.50, "b": ["\","]}"#);
        let long = "x".repeat(90);
        let text = format!(r#"{{"a":["{long}",{{"b":"]}}"}}]}}"#);
        assert_eq!(pretty(&text), format!("{{\n  \"a\": [\n    \"{long}\",\n    {{\"b\": \"]}}\"}}\n  ]\n}}"));
        assert_eq!(pretty("{}"), "{}");
    }
}
