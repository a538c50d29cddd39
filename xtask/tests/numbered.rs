//! Each numbered behaviour of the five services that witgate replaces has a test whose name begins with its number, as
//! `inv_6_endpoints_rotate_in_order`; one test may have several: `smk_7_and_8_…`, `inv_6_to_9_…`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The numbers of each service.
const NUMBERS: [(&str, &[u32]); 5] = [
    ("inv", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]),
    ("awa", &[1, 2, 3, 4, 5, 7, 8, 10, 12, 13, 15, 16, 17]),
    ("bed", &[1, 2, 3, 4, 5, 6, 7, 9]),
    ("exe", &[1, 2, 3, 4, 5, 7, 8, 9, 10, 12, 13, 14, 16, 17, 18, 19, 20, 22, 23, 24, 25, 26, 27, 28, 29, 31]),
    ("smk", &[2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", "node_modules", ".venv"].contains(&name.as_str()) && !name.starts_with('.') {
                sources(&path, into);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "py") {
            into.push(path);
        }
    }
}

/// The numbers with which the name of a test begins.
fn numbers(name: &str) -> Option<(&'static str, Vec<u32>)> {
    let (service, _) =
        NUMBERS.iter().find(|(service, _)| name.strip_prefix(service).is_some_and(|r| r.starts_with('_')))?;
    let mut numbers = Vec::new();
    let mut words = name.split('_').skip(1).peekable();
    while let Some(word) = words.next() {
        match word.parse() {
            Ok(number) => numbers.push(number),
            Err(_) if word == "and" && words.peek().is_some_and(|next| next.parse::<u32>().is_ok()) => {}
            Err(_) if word == "to" && words.peek().is_some_and(|next| next.parse::<u32>().is_ok()) => {
                let last = words.next().and_then(|next| next.parse().ok()).unwrap_or_default();
                numbers.extend(numbers.last().copied().unwrap_or(last) + 1..=last);
            }
            Err(_) => break,
        }
    }
    (!numbers.is_empty()).then_some((*service, numbers))
}

#[test]
fn every_numbered_behaviour_of_the_older_services_has_a_test_of_its_number() {
    let mut files = Vec::new();
    for folder in ["crates", "host", "tests", "components"] {
        sources(&root().join(folder), &mut files);
    }
    assert!(files.len() > 100, "{}", files.len());
    let mut tested = BTreeSet::new();
    for file in files {
        let source = std::fs::read_to_string(&file).unwrap();
        for line in source.lines().map(str::trim) {
            let name = line.strip_prefix("fn ").or_else(|| line.strip_prefix("async fn "));
            let name = name.or_else(|| line.strip_prefix("def test_"));
            let Some((name, _)) = name.and_then(|name| name.split_once('(')) else { continue };
            if let Some((service, numbers)) = numbers(name) {
                tested.extend(numbers.into_iter().map(|number| (service, number)));
            }
        }
    }
    let wanted = NUMBERS.iter().flat_map(|(service, all)| all.iter().map(|number| (*service, *number)));
    let missing: Vec<_> = wanted.filter(|behaviour| !tested.contains(behaviour)).collect();
    assert!(missing.is_empty(), "no test begins with these: {missing:?}");
}

#[test]
fn a_name_tells_its_numbers() {
    assert_eq!(numbers("inv_6_endpoints_rotate"), Some(("inv", vec![6])));
    assert_eq!(numbers("inv_6_to_9_endpoints_of_3"), Some(("inv", vec![6, 7, 8, 9])));
    assert_eq!(numbers("smk_9_10_11_and_12_the_answer"), Some(("smk", vec![9, 10, 11, 12])));
    assert_eq!(numbers("bed_r3_a_burst"), None);
    assert_eq!(numbers("invariant_1_no_import"), None);
}
