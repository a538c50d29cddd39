//! The table of what each backend can do.

use witgate_matrix::capabilities::{Cell, best, document};
use witgate_matrix::{BACKENDS, requests, root};

#[test]
fn the_documents_table_is_what_the_adapters_do() {
    let path = root("docs/adapters.md");
    let text = document();
    if std::env::var_os("WITGATE_UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let differ = text.lines().zip(kept.lines()).find(|(is, was)| is != was);
    assert!(
        kept == text,
        "docs/adapters.md is not what the adapters do: WITGATE_UPDATE=1 cargo test -p witgate-matrix --test capabilities\n{differ:?}"
    );
}

#[test]
fn what_an_adapter_says_of_itself_is_what_it_does() {
    let all = requests();
    let operations = [
        ("chat", "Chat"),
        ("completion", "Text completion"),
        ("embedding", "One text"),
        ("count-tokens", "Counting tokens"),
        ("models", "Listing models"),
    ];
    let capabilities = [
        ("tools", "Tools on offer"),
        ("images", "Image, as data"),
        ("documents", "PDF, as data"),
        ("audio", "Sound"),
        ("json-schema", "JSON by a schema"),
        ("reasoning", "Effort of reasoning"),
        ("logprobs", "`logprobs`"),
        ("n", "Several answers (`n`)"),
        ("prompt-cache", "Prompt-cache marks"),
    ];
    let mut wrong = Vec::new();
    for backend in BACKENDS {
        let description = (backend.api.describe)();
        let mut compare = |said: &[String], names: &[(&str, &str)]| {
            for (name, row) in names {
                // Files in a conversation are passed on to containers; vLLM's own takes none.
                if (description.id.as_str(), *name) == ("sagemaker", "documents") {
                    continue;
                }
                let does = best(&description.id, row, &all) == Cell::Yes;
                if said.iter().any(|said| said == name) != does {
                    wrong.push(format!("{}: {name} is {}", description.id, if does { "not told" } else { "told" }));
                }
            }
        };
        compare(&description.operations, &operations);
        // The stub takes everything, and does nothing with it.
        if description.id != "stub" {
            compare(&description.capabilities, &capabilities);
        }
    }
    wrong.dedup();
    assert_eq!(wrong, [""; 0]);
}
