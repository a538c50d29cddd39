//! All text of a request that people, tools or models wrote.

use witgate_model::{EmbeddingText, Input, MediaSource, Message, Part, Request, ResultContent, Role};

/// What a text of a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The operator's own words.
    Instructions,
    /// Anybody else's words.
    Prose,
    /// JSON text.
    Json,
    /// The name of the end user, of a speaker or of a file. Some backends take letters, digits, `_` and `-` only.
    Name,
}

macro_rules! visitor {
    ($(#[$docs:meta])* $visible:vis $name:ident, $of_messages:ident, [$($mutable:tt)?], $text:ty, $iter:ident) => {
        $(#[$docs])*
        $visible fn $name(request: &$($mutable)? Request, visit: &mut dyn FnMut(Place, $text)) {
            match &$($mutable)? request.input {
                Input::Chat(messages) | Input::CountTokens(messages) => $of_messages(messages, visit),
                Input::Completion(prompt) => {
                    visit(Place::Prose, &$($mutable)? prompt.text);
                    if let Some(suffix) = &$($mutable)? prompt.suffix {
                        visit(Place::Prose, suffix);
                    }
                }
                Input::Embedding(embedding) => {
                    for text in embedding.texts.$iter() {
                        if let EmbeddingText::Text(text) = text {
                            visit(Place::Prose, text);
                        }
                    }
                }
                Input::Models | Input::Other(_) => {}
            }
            if let Some(name) = &$($mutable)? request.end_user {
                visit(Place::Name, name);
            }
        }

        fn $of_messages(messages: &$($mutable)? [Message], visit: &mut dyn FnMut(Place, $text)) {
            for message in messages.$iter() {
                let prose = match message.role {
                    Role::System | Role::Developer => Place::Instructions,
                    _ => Place::Prose,
                };
                // A tool's name says which one it is.
                if message.role != Role::Tool
                    && let Some(name) = &$($mutable)? message.name
                {
                    visit(Place::Name, name);
                }
                for part in message.parts.$iter() {
                    match part {
                        Part::Text(text) | Part::Refusal(text) => visit(prose, &$($mutable)? text.text),
                        Part::Media(media) => {
                            if let MediaSource::Text(text) = &$($mutable)? media.source {
                                visit(prose, text);
                            }
                            if let Some(name) = &$($mutable)? media.name {
                                visit(Place::Name, name);
                            }
                        }
                        Part::ToolCall(call) => visit(Place::Json, &$($mutable)? call.arguments),
                        Part::ToolResult(result) => {
                            for content in result.content.$iter() {
                                match content {
                                    ResultContent::Text(text) => visit(Place::Prose, &$($mutable)? text.text),
                                    ResultContent::Media(media) => {
                                        if let MediaSource::Text(text) = &$($mutable)? media.source {
                                            visit(Place::Prose, text);
                                        }
                                        if let Some(name) = &$($mutable)? media.name {
                                            visit(Place::Name, name);
                                        }
                                    }
                                    ResultContent::Other(_) => {}
                                }
                            }
                        }
                        // A model's own, and what a backend signed must come back as it was.
                        Part::Reasoning(_) | Part::Other(_) => {}
                    }
                }
            }
        }
    };
}

visitor!(
    /// Calls `visit` for each text of a request that people, tools or models wrote, in order: messages, the text of documents,
    /// the arguments of tool calls, the results of tools, prompts, texts to embed; and the names of speakers, of files and of
    /// the end user. Not among them are reasoning, which backends sign and take back only unchanged, what is said of tools (names,
    /// descriptions, schemas), the form of the answer, stop sequences, and members that the contract does not name.
    pub each, of_messages, [], &str, iter);
visitor!(each_mut, of_messages_mut, [mut], &mut String, iter_mut);

/// The request with the texts that `change` replaces; `None` where it replaces none. The texts are those of [`each`].
pub fn rewrite(request: &Request, mut change: impl FnMut(Place, &str) -> Option<String>) -> Option<Request> {
    let mut changed = Vec::new();
    let mut some = false;
    each(request, &mut |place, text| {
        let new = change(place, text);
        some |= new.is_some();
        changed.push(new);
    });
    some.then(|| {
        let mut request = request.clone();
        let mut changed = changed.into_iter();
        each_mut(&mut request, &mut |_, text| {
            if let Some(Some(new)) = changed.next() {
                *text = new;
            }
        });
        request
    })
}
