//! Which environment variables a configuration refers to, and for what: for whoever prepares a runtime for it.

use std::collections::BTreeMap;

/// An environment variable that a configuration refers to, as `${NAME}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// The keys that refer to it, as `providers.openai.api_key`, in the file's order of tables.
    pub keys: Vec<String>,
    /// Every reference has a default.
    pub optional: bool,
    /// Some key of it holds what is never shown.
    pub secret: bool,
    /// No key of it holds anything else.
    pub only_secret: bool,
}

/// The variables that the text of a configuration refers to, by name. What is wrong with the text is not told here.
pub fn variables(text: &str) -> Vec<Variable> {
    // Which value it is does not matter: what is read of it is thrown away.
    let env = |_: &str| Some(String::new());
    let (uses, hidden) = crate::file::references(text, &env);
    let mut found: BTreeMap<String, Variable> = BTreeMap::new();
    for used in uses {
        let is_hidden = hidden.contains(&used.key);
        let variable = found.entry(used.name).or_insert_with_key(|name| Variable {
            name: name.clone(),
            keys: Vec::new(),
            optional: true,
            secret: false,
            only_secret: true,
        });
        variable.optional &= used.default;
        variable.secret |= is_hidden;
        variable.only_secret &= is_hidden;
        variable.keys.push(used.key);
    }
    found.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::variables;

    #[test]
    fn variables_are_told_with_their_keys_and_whether_they_are_secret() {
        let text = "server.api_keys = [\"${CLIENT}\", \"x${CLIENT}\"]\n[providers.a]\nadapter = \"openai\"\n\
                    endpoint = \"https://${HOST:-example.com}/${PART}\"\napi_key = \"${KEY:-}\"\n\
                    headers = { x-a = \"${HOST}\" }\nsettings = { a = \"$${NO}\" }\n[state]\nurl = \"${REDIS}\"\n";
        let told: Vec<_> = variables(text)
            .into_iter()
            .map(|v| (v.name, v.keys.join(" "), v.optional, v.secret, v.only_secret))
            .collect();
        let expected = [
            ("CLIENT", "server.api_keys[0] server.api_keys[1]", false, true, true),
            ("HOST", "providers.a.endpoint providers.a.headers.x-a", false, true, false),
            ("KEY", "providers.a.api_key", true, true, true),
            ("PART", "providers.a.endpoint", false, false, false),
            ("REDIS", "state.url", false, true, true),
        ];
        let expected =
            expected.map(|(name, keys, optional, secret, only)| (name.into(), keys.into(), optional, secret, only));
        assert_eq!(told, expected);
    }
}
