//! Handlebars over the contents of messages, bounded.
//!
//! A template sees the variables that it is given and nothing else: no file, no environment, no clock. There are no
//! partials and no decorators, so that a template cannot call itself. Before it runs, the parsed template is rewritten:
//!
//! - every expression goes through the helper `__text`, which writes values as JavaScript does;
//! - every block's inside begins with the helper `__tick`, which spends of a budget what one pass over it costs.
//!
//! Depth is bounded before the text is parsed, because the parser recurses; size, steps and output while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use handlebars::template::{HelperTemplate, Parameter, Subexpression, TemplateElement};
use handlebars::{
    Context, Handlebars, Output, RenderContext, RenderError, RenderErrorReason, Renderable, Template, html_escape,
    no_escape,
};
use serde_json::{Map, Value};

use super::helpers;

/// The largest text that is parsed as a template.
const MOST_BYTES: usize = 256 * 1024;

/// The deepest nesting of blocks, and of parentheses inside one expression.
const MOST_DEPTH: usize = 16;

/// The steps that all templates of one request may take.
const MOST_STEPS: u64 = 500_000;

/// The most bytes that all templates of one request may write.
const MOST_OUTPUT: usize = 4 * 1024 * 1024;

/// How written values are escaped.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Escape {
    /// Not at all: a prompt is not a web page.
    #[default]
    None,
    /// As the original does: for HTML.
    Html,
}

/// What is wrong with a template, and where.
#[derive(Debug)]
pub(super) struct Broken {
    /// From 1.
    line: usize,
    what: String,
}

impl Broken {
    pub(super) fn message(&self) -> String {
        format!("line {}: {}", self.line, self.what)
    }
}

/// The steps that are left.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<AtomicU64>);

impl Budget {
    /// Takes `steps`, or fails where not so many are left.
    pub(super) fn spend(&self, steps: u64) -> Result<(), RenderError> {
        match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(steps)) {
            Ok(_) => Ok(()),
            Err(_) => {
                let what = format!("the templates of one request take more than {MOST_STEPS} steps, the limit");
                Err(RenderErrorReason::Other(what).into())
            }
        }
    }

    /// Takes what it costs to handle a text of so many bytes.
    pub(super) fn spend_bytes(&self, bytes: usize) -> Result<(), RenderError> {
        self.spend(1 + bytes as u64 / 64)
    }
}

/// Renders the templates of one request.
pub(super) struct Templates {
    registry: Handlebars<'static>,
    context: Context,
    written: usize,
}

impl Templates {
    /// `variables` are what the templates see.
    pub(super) fn new(escape: Escape, variables: Map<String, Value>) -> Result<Self, String> {
        let mut registry = Handlebars::new();
        registry.register_escape_fn(match escape {
            Escape::None => no_escape,
            Escape::Html => html_escape,
        });
        let budget = Budget(Arc::new(AtomicU64::new(MOST_STEPS)));
        helpers::register(&mut registry, &budget);
        let context = Context::wraps(Value::Object(variables)).map_err(|error| error.to_string())?;
        Ok(Templates { registry, context, written: 0 })
    }

    /// The text that the template `source` makes.
    pub(super) fn render(&mut self, source: &str) -> Result<String, Broken> {
        if !source.contains("{{") {
            return Ok(source.to_owned());
        }
        check(source)?;
        let mut template = Template::compile(source).map_err(|error| {
            let line = error.pos().map_or(1, |(line, _)| line);
            Broken { line, what: error.reason().to_string() }
        })?;
        self.prepare(&mut template)?;
        let mut out = Bounded { text: String::new(), left: MOST_OUTPUT - self.written };
        let mut render = RenderContext::new(None);
        template.render(&self.registry, &self.context, &mut render, &mut out).map_err(|error| broken(&error))?;
        self.written += out.text.len();
        Ok(out.text)
    }

    /// Rewrites a template, and refuses what is not to be run.
    fn prepare(&self, template: &mut Template) -> Result<(), Broken> {
        let mapping = &template.mapping;
        for (number, element) in template.elements.iter_mut().enumerate() {
            let line = || mapping.get(number).map_or(1, |place| place.0);
            match element {
                TemplateElement::Expression(expression) | TemplateElement::HtmlExpression(expression) => {
                    self.wrap(expression);
                }
                TemplateElement::HelperBlock(block) => {
                    if let Some(inner) = &mut block.template {
                        self.prepare(inner)?;
                        tick(inner);
                    }
                    if let Some(inverse) = &mut block.inverse {
                        self.prepare(inverse)?;
                    }
                }
                TemplateElement::PartialExpression(partial) | TemplateElement::PartialBlock(partial) => {
                    let what = format!("missing partial {:?}: there are none here", name(&partial.name));
                    return Err(Broken { line: line(), what });
                }
                TemplateElement::DecoratorExpression(decorator) | TemplateElement::DecoratorBlock(decorator) => {
                    let what = format!("missing decorator {:?}: there are none here", name(&decorator.name));
                    return Err(Broken { line: line(), what });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// `{{a b}}` becomes `{{__text (a b)}}`, and `{{a}}`, unless it is a helper, `{{__text a}}`.
    fn wrap(&self, expression: &mut HelperTemplate) {
        let bare = expression.params.is_empty() && expression.hash.is_empty();
        let inner = std::mem::replace(&mut expression.name, Parameter::Name(helpers::TEXT.to_owned()));
        let params = std::mem::take(&mut expression.params);
        let hash = std::mem::take(&mut expression.hash);
        let known = inner.as_name().is_some_and(helpers::is_known);
        let value = match inner {
            value @ (Parameter::Path(_) | Parameter::Subexpression(_) | Parameter::Literal(_)) if bare && !known => {
                value
            }
            // A name without the parts of a path.
            Parameter::Name(name) if bare && !known => match Parameter::parse(&name) {
                Ok(path) => path,
                Err(_) => Parameter::Literal(Value::Null),
            },
            helper => Parameter::Subexpression(Subexpression::new(helper, params, hash)),
        };
        expression.params.push(value);
    }
}

fn name(parameter: &Parameter) -> String {
    parameter.as_name().unwrap_or("(…)").chars().take(64).collect()
}

/// Has each pass over the inside of a block pay for its elements.
fn tick(inner: &mut Template) {
    let Ok(mut pay) = Template::compile("{{__tick 1}}") else { return };
    let Some(TemplateElement::Expression(mut element)) = pay.elements.pop() else { return };
    element.params = vec![Parameter::Literal(Value::from(inner.elements.len() as u64 + 1))];
    inner.elements.insert(0, TemplateElement::Expression(element));
    if let Some(first) = inner.mapping.first().cloned() {
        inner.mapping.insert(0, first);
    }
}

/// Bounds what the parser, which recurses, gets to see.
fn check(source: &str) -> Result<(), Broken> {
    let fail = |at: usize, what: String| {
        let line = source.as_bytes().iter().take(at).filter(|&&byte| byte == b'\n').count() + 1;
        Err(Broken { line, what })
    };
    if source.len() > MOST_BYTES {
        return fail(0, format!("the template has {} bytes, more than {MOST_BYTES}", source.len()));
    }
    let mut blocks = 0_usize;
    for (at, _) in source.match_indices("{{") {
        let rest = source.get(at + 2..).unwrap_or_default();
        let tag = rest.split("}}").next().unwrap_or_default();
        match tag.trim_start_matches(['{', '~']).bytes().next() {
            Some(b'#' | b'^') => blocks += 1,
            Some(b'/') => blocks = blocks.saturating_sub(1),
            _ => {}
        }
        if blocks > MOST_DEPTH {
            return fail(at, format!("blocks are nested deeper than {MOST_DEPTH}"));
        }
        let mut open = 0_usize;
        for byte in tag.bytes() {
            match byte {
                b'(' | b'[' | b'{' => open += 1,
                b')' | b']' | b'}' => open = open.saturating_sub(1),
                _ => {}
            }
            if open > MOST_DEPTH {
                return fail(at, format!("an expression is nested deeper than {MOST_DEPTH}"));
            }
        }
    }
    Ok(())
}

/// What went wrong while a template ran.
fn broken(error: &RenderError) -> Broken {
    let what = match error.reason() {
        RenderErrorReason::HelperNotFound(name) => format!("missing helper {name:?}"),
        RenderErrorReason::IOError(error) => error.to_string(),
        other => other.to_string(),
    };
    Broken { line: error.line_no.unwrap_or(1), what: what.chars().take(512).collect() }
}

/// A text that takes so many bytes more.
struct Bounded {
    text: String,
    left: usize,
}

impl Output for Bounded {
    fn write(&mut self, segment: &str) -> Result<(), std::io::Error> {
        match self.left.checked_sub(segment.len()) {
            Some(left) => {
                self.left = left;
                self.text.push_str(segment);
                Ok(())
            }
            None => Err(std::io::Error::other(format!(
                "the templates of one request write more than {MOST_OUTPUT} bytes, the limit"
            ))),
        }
    }
}
