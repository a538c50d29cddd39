//! The policies that come with witgate, each a component that imports nothing (see `wit/policy`):
//!
//! - [`Redactor`] keeps personal data and secrets from backends, and puts them back into the answer where that is wanted.
//! - [`Guard`] refuses, marks or reroutes requests with blocked terms or words of prompt injection, and stops answers that
//!   say a blocked term.
//!
//! Both look at what people and tools wrote: text, the text of documents, tool calls' arguments, tools' results, the names of
//! users, speakers and files. Not looked at are pictures and sound, members that the contract does not name, what a request says
//! of its tools (names, descriptions, schemas), the form that it wants the answer in, and stop sequences.
//!
//! What both stand on is there for others: [`each`] and [`rewrite`] go over the texts of a request, [`TextFilter`] holds back
//! of an answer's text what cannot be decided yet.
//!
//! ```
//! use witgate_model::policy::Context;
//! use witgate_model::{Input, Message, Part, Policy, Request, Role};
//! use witgate_policies::Redactor;
//!
//! let asked = Request::chat("openai-chat", "m", vec![Message::text(Role::User, "Write to ada@example.com")]);
//! let decision = Redactor::on_request("{}", &Context::default(), &asked).unwrap();
//! let Some(Input::Chat(messages)) = decision.request.map(|request| request.input) else { panic!() };
//! assert_eq!(messages[0].parts, [Part::text("Write to [EMAIL]")]);
//! ```

mod filter;
mod find;
mod guard;
mod json;
mod redactor;
mod texts;

pub use filter::{TextFilter, TextWatcher};
pub use guard::{Guard, Patrol};
pub use redactor::{Redaction, Redactor};
pub use texts::{Place, each, rewrite};
