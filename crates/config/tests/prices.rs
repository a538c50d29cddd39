//! The table of prices that comes with witgate says where it is from, and all of it is read.

use serde_json::Value;
use witgate_config::{Access, Tokens};

#[test]
fn the_table_names_its_sources_and_its_date_and_each_of_its_prices_is_read() {
    let table: Value = serde_json::from_str(include_str!("../data/prices.json")).expect("JSON");
    let date: Vec<u16> = table["date"].as_str().expect("a date").split('-').map(|part| part.parse().unwrap()).collect();
    assert!(matches!(date[..], [2025..2100, 1..=12, 1..=31]), "{date:?}");
    let sources = table["sources"].as_array().expect("sources");
    assert!(!sources.is_empty() && sources.iter().all(|source| source.as_str().is_some_and(|text| text.len() > 10)));
    const MILLION: u64 = 1_000_000;
    let models = table["models"].as_object().expect("models");
    assert!(models.len() > 100);
    // Tokens of a cache are tokens of the prompt, those of reasoning are of the answer.
    let each = [
        ("input", Tokens { input: MILLION, ..Tokens::default() }),
        ("output", Tokens { output: MILLION, ..Tokens::default() }),
        ("cache_read", Tokens { input: MILLION, cache_read: MILLION, ..Tokens::default() }),
        ("cache_write", Tokens { input: MILLION, cache_write: MILLION, ..Tokens::default() }),
        ("reasoning", Tokens { output: MILLION, reasoning: MILLION, ..Tokens::default() }),
    ];
    let access = Access::default();
    for (model, prices) in models {
        assert!(prices["input"].is_number() && prices["output"].is_number(), "{model}");
        let known = |name: &String| each.iter().any(|(known, _)| known == name);
        assert!(prices.as_object().unwrap().keys().all(known), "{model}: {prices}");
        let price = access.price("p", model).unwrap_or_else(|| panic!("{model} is not read"));
        for (name, tokens) in &each {
            let Some(dollars) = prices[name].as_f64() else { continue };
            let cost = price.cost(tokens) as f64 / 1e9;
            assert!((cost - dollars).abs() < 1e-6, "{model} {name}: {cost} of {dollars}");
        }
    }
}
