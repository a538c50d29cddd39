//! The normaliser as a component: a shell without logic over `witgate-dialects`.

use std::cell::RefCell;

use bindings::exports::witgate::normaliser::dialects::{Guest, GuestRenderer};
use witgate_model::normaliser::{AnswerStart, Client, Ending, Failure, Limits, Rendered, Route, Step};
use witgate_model::{Error, Event};

#[allow(missing_docs, clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        path: ["../../wit/adapter", "../../wit/normaliser"],
        world: "witgate:normaliser/normaliser",
        with: {
            "witgate:adapter/types@0.1.0": witgate_model::types,
            "witgate:normaliser/types@0.1.0": witgate_model::normaliser,
        },
        pub_export_macro: true,
    });
}

struct Shell;

impl Guest for Shell {
    type Renderer = Renderer;

    fn routes() -> Vec<Route> {
        witgate_dialects::routes().to_vec()
    }

    fn parse(dialect: String, client: Client, limits: Limits, body: Vec<u8>) -> Result<Step, Error> {
        witgate_dialects::step(&dialect, &client, &limits, &body)
    }

    fn render_error(dialect: String, settings: String, failure: Failure) -> Rendered {
        witgate_dialects::refuse(&dialect, &settings, &failure)
    }
}

/// The renderer of one answer.
struct Renderer(RefCell<witgate_dialects::Renderer>);

impl GuestRenderer for Renderer {
    fn new(dialect: String, start: AnswerStart) -> Self {
        Renderer(RefCell::new(witgate_dialects::Renderer::new(&dialect, start)))
    }

    fn head(&self) -> Rendered {
        self.0.borrow().head()
    }

    fn feed(&self, events: Vec<Event>) -> Vec<u8> {
        self.0.borrow_mut().feed(events)
    }

    fn end(&self) -> Ending {
        self.0.borrow_mut().end()
    }

    fn refuse(&self, failure: Failure) -> Option<Rendered> {
        self.0.borrow_mut().refuse(&failure)
    }

    fn fail(&self, failure: Failure) -> Vec<u8> {
        self.0.borrow_mut().fail(&failure)
    }

    fn keep_alive(&self) -> Vec<u8> {
        self.0.borrow().keep_alive()
    }
}

bindings::export!(Shell with_types_in bindings);
