//! What each backend can do, found out by asking it: the table in `docs/adapters.md`.
//!
//! A capability is a canonical request, perhaps with one member more. A cell says what came of it: sent, sent without
//! effect (the part that matters is not in the body), left out where `drop_unsupported` allows it, or refused.

use std::fmt::Write as _;

use serde_json::Value;
use witgate_model::{Description, Input, Request};

use crate::{BACKENDS, Backend, Canonical, requests};

/// What comes of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell {
    /// It is sent.
    Yes,
    /// It is accepted, but the backend is not told.
    Ignored,
    /// It is refused, or left out where the configuration says so.
    Dropped,
    /// It is refused.
    No,
}

impl Cell {
    fn sign(self) -> &'static str {
        match self {
            Cell::Yes => "✓",
            Cell::Ignored => "○",
            Cell::Dropped => "drop",
            Cell::No => "–",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Capability {
    /// For people.
    pub name: &'static str,
    /// The canonical request.
    pub request: &'static str,
    /// Members that it has beside, a JSON object.
    pub with: &'static str,
    /// What stands in the body where the backend is told, one of these.
    pub told: &'static [&'static str],
}

const fn row(name: &'static str, request: &'static str, told: &'static [&'static str]) -> Capability {
    Capability { name, request, with: "{}", told }
}

/// A member of a chat of one text.
const fn member(name: &'static str, with: &'static str, told: &'static [&'static str]) -> Capability {
    Capability { name, request: "text", with, told }
}

/// A member of a chat with one tool on offer.
const fn tool(name: &'static str, with: &'static str, told: &'static [&'static str]) -> Capability {
    Capability { name, request: "tool-choice-none", with, told }
}

/// A member of a request for one vector.
const fn vector(name: &'static str, with: &'static str, told: &'static [&'static str]) -> Capability {
    Capability { name, request: "openai-embeddings/text", with, told }
}

const SOUND: &str = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"What is said?"},
    {"type":"input_audio","input_audio":{"data":"UklGRiQAAABXQVZF","format":"wav"}}]}]}"#;
const TOOL: &str = r#"{"tool_choice":{"type":"function","function":{"name":"get_weather"}}}"#;
const STRICT: &str = r#"{"tool_choice":null,"tools":[{"type":"function","function":{"name":"f","strict":true,
    "parameters":{"type":"object","properties":{},"required":[],"additionalProperties":false}}}]}"#;

/// The rows, under their headings.
pub const CAPABILITIES: &[(&str, &[Capability])] = &[
    (
        "Operations",
        &[
            row("Chat", "text", &["capital of France"]),
            row("Streaming", "stream", &["a story"]),
            row("Text completion", "openai-completions/prompt", &["Once upon a time"]),
            row("Fill in the middle (`suffix`)", "openai-completions/suffix", &["print(f(2))"]),
            row("Counting tokens", "anthropic-messages/count-tokens", &["How many tokens", "SG93IG1hbnkgdG9rZW5z"]),
            row("Listing models", "models", &[]),
        ],
    ),
    (
        "Embeddings",
        &[
            row("One text", "openai-embeddings/text", &["quick brown fox"]),
            vector("Several texts", r#"{"input":["one","two"]}"#, &["two"]),
            row("Tokens", "openai-embeddings/tokens", &["1,2,3"]),
            vector("`dimensions`", r#"{"dimensions":256}"#, &["256"]),
            vector("`user`", r#"{"user":"user-4711"}"#, &["user-4711"]),
        ],
    ),
    (
        "What a conversation may hold",
        &[
            row("System prompt", "system", &["You are terse."]),
            row("Image, as data", "ollama-chat/image", &["iVBORw0KGgo"]),
            row("Image, by URL", "image-url", &["https://example.com/a.png"]),
            row("PDF, as data", "document", &["JVBERi0xLjQK"]),
            member("Sound", SOUND, &["UklGRiQAAABXQVZF"]),
            Capability {
                name: "Prompt-cache marks",
                request: "anthropic-messages/prompt-cache",
                with: r#"{"tools":[]}"#,
                told: &["cache_control", "cachePoint"],
            },
        ],
    ),
    (
        "Tools",
        &[
            tool("Tools on offer", r#"{"tool_choice":"auto"}"#, &["get_weather"]),
            tool(
                "A tool must be called",
                r#"{"tool_choice":"required"}"#,
                &[r#""tool_choice":"required""#, r#""type":"any""#, r#""any":{}"#],
            ),
            tool(
                "This tool must be called",
                TOOL,
                &[
                    r#""function":{"name":"get_weather"}}"#,
                    r#""tool":{"name":"get_weather"}"#,
                    r#""type":"tool","name":"get_weather""#,
                    r#"{"type":"function","name":"get_weather"}"#,
                ],
            ),
            tool("No tool may be called", r#"{"tool_choice":"none"}"#, &[]),
            tool(
                "One call at a time",
                r#"{"tool_choice":"auto","parallel_tool_calls":false}"#,
                &[r#""parallel_tool_calls":false"#, r#""disable_parallel_tool_use":true"#],
            ),
            tool("Arguments strictly by their schema", STRICT, &[r#""strict":true"#]),
            row("Results", "tools-no-arguments", &["get_time"]),
            row("Results that are errors", "anthropic-messages/tool-result-error", &["no such station"]),
            row("Results that are images", "anthropic-messages/tool-result-image", &["iVBORw0KGgo"]),
        ],
    ),
    (
        "The answer",
        &[
            row("Some JSON object", "json-object", &["json"]),
            row("JSON by a schema", "json-schema-loose", &["minLength"]),
            row("JSON by a strict schema", "json-schema", &["additionalProperties"]),
            row("JSON by a schema, beside tools", "json-schema-tools", &["additionalProperties"]),
            member(
                "Effort of reasoning",
                r#"{"reasoning_effort":"low","max_tokens":8000}"#,
                &[r#""low""#, "budget_tokens"],
            ),
            Capability {
                name: "Reasoning of earlier turns",
                request: "ollama-chat/thinking",
                with: r#"{"think":null}"#,
                told: &["Easy."],
            },
            row("Signed and encrypted reasoning", "anthropic-messages/thinking", &["c2lnbmF0dXJl"]),
            member("Several answers (`n`)", r#"{"n":2}"#, &[r#""n":2"#]),
            member("`logprobs`", r#"{"logprobs":true,"top_logprobs":3}"#, &["logprobs"]),
        ],
    ),
    (
        "Sampling",
        &[
            member("`max_tokens`", r#"{"max_tokens":4711}"#, &["4711"]),
            member("`temperature`", r#"{"temperature":0.25}"#, &["0.25"]),
            member("`top_p`", r#"{"top_p":0.75}"#, &["0.75"]),
            member("`top_k`", r#"{"top_k":4711}"#, &["4711"]),
            member("`min_p`", r#"{"min_p":0.0625}"#, &["0.0625"]),
            member("`stop`", r#"{"stop":["END"]}"#, &["END"]),
            member("`seed`", r#"{"seed":4711}"#, &["4711"]),
            member("`frequency_penalty`", r#"{"frequency_penalty":0.375}"#, &["0.375"]),
            member("`presence_penalty`", r#"{"presence_penalty":0.375}"#, &["0.375"]),
            member("`repetition_penalty`", r#"{"repetition_penalty":1.125}"#, &["1.125"]),
            member("`logit_bias`", r#"{"logit_bias":{"15043":-100}}"#, &["15043"]),
            member("`user`", r#"{"user":"user-4711"}"#, &["user-4711"]),
        ],
    ),
];

impl Capability {
    /// The request that asks for it.
    pub fn asked(&self, all: &[Canonical]) -> Request {
        if self.request == "models" {
            return Request::new("openai-chat", "", Input::Models);
        }
        let canonical = all.iter().find(|canonical| canonical.name == self.request);
        let mut canonical = canonical.unwrap_or_else(|| panic!("there is no request {}", self.request)).clone();
        let mut body: Value = serde_json::from_str(&canonical.body).unwrap();
        let with: Value = serde_json::from_str(self.with).unwrap();
        body.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        canonical.body = body.to_string();
        canonical.parsed().request
    }

    /// What comes of it at `backend`.
    pub fn cell(&self, request: &Request, backend: &Backend) -> Cell {
        match backend.encode(request, false) {
            Ok(http) => {
                let body = String::from_utf8_lossy(&http.body);
                let told = self.told.is_empty() || self.told.iter().any(|told| body.contains(told));
                if told { Cell::Yes } else { Cell::Ignored }
            }
            Err(_) => match backend.encode(request, true) {
                Ok(_) => Cell::Dropped,
                Err(_) => Cell::No,
            },
        }
    }
}

/// The best that any of an adapter's backends makes of the capability of that name.
pub fn best(adapter: &str, capability: &str, all: &[Canonical]) -> Cell {
    let rows = CAPABILITIES.iter().flat_map(|(_, rows)| *rows);
    let row = rows.into_iter().find(|row| row.name == capability);
    let row = row.unwrap_or_else(|| panic!("there is no capability {capability}"));
    let request = row.asked(all);
    let of = BACKENDS.iter().filter(|backend| (backend.api.describe)().id == adapter);
    let cells: Vec<Cell> = of.map(|backend| row.cell(&request, backend)).collect();
    let order = [Cell::Yes, Cell::Ignored, Cell::Dropped];
    order.into_iter().find(|cell| cells.contains(cell)).unwrap_or(Cell::No)
}

const HEAD: &str = "<!-- Written by `WITGATE_UPDATE=1 cargo test -p witgate-matrix --test capabilities`. Do not edit. -->

# Backends, and what each can do

The tables are not claims: each cell is a request of `tests/fixtures/requests` that the adapter was asked to encode, with the \
settings and the model below.

| | |
|---|---|
| ✓ | it is sent to the backend |
| ○ | it is taken, and the backend is not told of it |
| drop | the request is refused with a 400 that names the field; with `drop_unsupported = true` it is sent without it, and \
the answer's header `x-witgate-dropped` says what was left out |
| – | the request is refused |

What a backend is sent for a whole request, word for word, stands in `tests/matrix/snapshots/requests`.
";

/// `docs/adapters.md`.
pub fn document() -> String {
    let all = requests();
    let mut out = String::from(HEAD);
    for (heading, rows) in CAPABILITIES {
        let cells: Vec<Vec<Cell>> = rows
            .iter()
            .map(|row| {
                let request = row.asked(&all);
                BACKENDS.iter().map(|backend| row.cell(&request, backend)).collect()
            })
            .collect();
        // The stub does nothing; models that only embed, and backends that cannot embed, have no place in the other's table.
        let embeddings = *heading == "Embeddings";
        let shown = |column: usize| {
            let used = !embeddings || cells.iter().any(|cells| matches!(cells[column], Cell::Yes));
            BACKENDS[column].name != "stub" && used && (embeddings || !BACKENDS[column].embeds_only)
        };
        let columns: Vec<usize> = (0..BACKENDS.len()).filter(|column| shown(*column)).collect();
        write!(out, "\n## {heading}\n\n| |").unwrap();
        for column in &columns {
            write!(out, " {} |", BACKENDS[*column].name.replacen(' ', "<br>", 1).replace(", ", "<br>")).unwrap();
        }
        write!(out, "\n|---|{}\n", ":-:|".repeat(columns.len())).unwrap();
        for (row, cells) in rows.iter().zip(&cells) {
            write!(out, "| {} |", row.name).unwrap();
            for column in &columns {
                write!(out, " {} |", cells[*column].sign()).unwrap();
            }
            out.push('\n');
        }
    }
    out.push_str("\n## Each adapter\n");
    let mut seen = String::new();
    for backend in BACKENDS {
        let description = (backend.api.describe)();
        if description.id != seen {
            adapter(&mut out, &description);
            seen = description.id;
        }
    }
    out
}

/// What an adapter says of itself.
fn adapter(out: &mut String, description: &Description) {
    let quoted = |list: &[String]| list.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let of = |backend: &&Backend| backend.name != "stub" && (backend.api.describe)().id == description.id;
    write!(out, "\n### {}\n\n{}.\n\n", description.id, description.summary.trim_end_matches('.')).unwrap();
    if let Some(endpoint) = &description.default_endpoint {
        writeln!(out, "- Endpoint, where the configuration names none: `{endpoint}`").unwrap();
    }
    for secret in &description.secrets {
        writeln!(out, "- Secret `{}`: {}", secret.name, secret.description).unwrap();
    }
    writeln!(out, "- Operations: {}", quoted(&description.operations)).unwrap();
    writeln!(out, "- Unknown members pass unchanged from clients of {}", quoted(&description.dialects)).unwrap();
    for backend in BACKENDS.iter().filter(of) {
        let settings = match backend.settings {
            "" => String::new(),
            settings => format!(", settings `{{{settings}}}`"),
        };
        writeln!(out, "- In the tables as *{}*: model `{}`{settings}", backend.name, backend.model).unwrap();
    }
    let schema: Value = serde_json::from_str(&description.settings_schema).unwrap();
    out.push_str("\n| setting | values | |\n|---|---|---|\n");
    for (name, setting) in schema["properties"].as_object().into_iter().flatten() {
        let mut values = match (setting["enum"].as_array(), setting["type"].as_str()) {
            (Some(values), _) => values.iter().map(|value| format!("`{}`", text(value))).collect::<Vec<_>>().join(", "),
            (None, Some(kind)) => kind.to_owned(),
            _ => String::new(),
        };
        if !setting["default"].is_null() {
            write!(values, "; default `{}`", text(&setting["default"])).unwrap();
        }
        let description = setting["description"].as_str().unwrap_or_default().replace('|', "\\|").replace('<', "&lt;");
        writeln!(out, "| `{name}` | {values} | {description} |").unwrap();
    }
}

/// A value as a configuration has it, without the quotes of a word.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
