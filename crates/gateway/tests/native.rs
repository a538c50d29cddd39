//! The normaliser without its component: for the tests' world, and for the example that measures policy.

use bytes::Bytes;
use witgate_gateway::{Fault, Normaliser};
use witgate_model::normaliser::{AnswerStart, Client, Ending, Failure, Limits, Rendered, Route, Step};
use witgate_model::{Error, Event};

/// The dialects without a component.
#[derive(Default)]
pub struct NativeNormaliser(Option<witgate_dialects::Renderer>);

impl NativeNormaliser {
    fn renderer(&mut self) -> &mut witgate_dialects::Renderer {
        self.0.as_mut().expect("start comes first")
    }
}

impl Normaliser for NativeNormaliser {
    fn routes(&mut self) -> Result<Vec<Route>, Fault> {
        Ok(witgate_dialects::routes().to_vec())
    }
    fn parse(
        &mut self,
        dialect: &str,
        client: &Client,
        limits: &Limits,
        body: &Bytes,
    ) -> Result<Result<Step, Error>, Fault> {
        Ok(witgate_dialects::step(dialect, client, limits, body))
    }
    fn render_error(&mut self, dialect: &str, settings: &str, failure: &Failure) -> Result<Rendered, Fault> {
        Ok(witgate_dialects::refuse(dialect, settings, failure))
    }
    fn start(&mut self, dialect: &str, start: AnswerStart) -> Result<(), Fault> {
        self.0 = Some(witgate_dialects::Renderer::new(dialect, start));
        Ok(())
    }
    fn head(&mut self) -> Result<Rendered, Fault> {
        Ok(self.renderer().head())
    }
    fn feed(&mut self, events: Vec<Event>) -> Result<Vec<u8>, Fault> {
        Ok(self.renderer().feed(events))
    }
    fn end(&mut self) -> Result<Ending, Fault> {
        Ok(self.renderer().end())
    }
    fn refuse(&mut self, failure: &Failure) -> Result<Option<Rendered>, Fault> {
        Ok(self.renderer().refuse(failure))
    }
    fn fail(&mut self, failure: &Failure) -> Result<Vec<u8>, Fault> {
        Ok(self.renderer().fail(failure))
    }
    fn keep_alive(&mut self) -> Result<Vec<u8>, Fault> {
        Ok(self.renderer().keep_alive())
    }
}
