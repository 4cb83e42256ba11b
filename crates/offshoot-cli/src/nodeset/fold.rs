//! Folding: from names back to the shortest set this notation has for them.
//!
//! A name is cut into text and numbers. Names with the same text are points in as many dimensions as they have
//! numbers; points, then boxes, that differ in one dimension only are merged until none do. Every step keeps the set of
//! names exactly, whatever the order, so the result expands to what was given.

use std::collections::HashMap;

/// A number as it is written: its value and its width in digits, so that `7` and `07` stay apart.
type Number = (u64, usize);
/// The numbers that one place of a set stands for, sorted.
type Place = Vec<Number>;

/// The set that stands for `names`: `web[1-3,7],db1`. Groups come in the order of their first name.
pub(crate) fn fold<S: AsRef<str>>(names: &[S]) -> String {
    let mut order: Vec<Vec<&str>> = Vec::new();
    let mut groups: HashMap<Vec<&str>, Vec<Vec<Place>>> = HashMap::new();
    for name in names {
        let (texts, numbers) = cut(name.as_ref());
        let group = groups.entry(texts).or_insert_with_key(|texts| {
            order.push(texts.clone());
            Vec::new()
        });
        group.push(numbers.into_iter().map(|number| vec![number]).collect());
    }
    let mut folded = String::new();
    for texts in &order {
        for places in merge(&groups[texts], texts.len() - 1) {
            if !folded.is_empty() {
                folded.push(',');
            }
            for (text, place) in texts.iter().zip(places.iter().map(Some).chain([None])) {
                folded.push_str(text);
                if let Some(place) = place {
                    write_place(place, &mut folded);
                }
            }
        }
    }
    folded
}

/// Cuts a name into texts and the numbers between them; there is always one text more.
fn cut(name: &str) -> (Vec<&str>, Vec<Number>) {
    let bytes = name.as_bytes();
    let (mut texts, mut numbers) = (Vec::new(), Vec::new());
    let (mut start, mut at, mut literal) = (0, 0, false);
    while at < bytes.len() {
        match bytes[at] {
            b'[' => literal = true,
            b']' => literal = false,
            b'0'..=b'9' if !literal => {
                let width = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                // A longer run of digits is no number of this notation, so it stays text.
                if width <= 18
                    && let Ok(value) = name[at..at + width].parse()
                {
                    texts.push(&name[start..at]);
                    numbers.push((value, width));
                    start = at + width;
                }
                at += width;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    texts.push(&name[start..]);
    (texts, numbers)
}

fn merge(points: &[Vec<Place>], dimensions: usize) -> Vec<Vec<Place>> {
    let mut boxes = points.to_vec();
    loop {
        let before = boxes.len();
        for dimension in (0..dimensions).rev() {
            boxes = merge_along(boxes, dimension);
        }
        // A group without numbers is one name, given once or often.
        if dimensions == 0 {
            boxes.truncate(1);
        }
        if boxes.len() == before {
            return boxes;
        }
    }
}

/// Joins the boxes that differ in `dimension` alone.
fn merge_along(boxes: Vec<Vec<Place>>, dimension: usize) -> Vec<Vec<Place>> {
    let mut merged: Vec<Vec<Place>> = Vec::new();
    let mut by_rest: HashMap<Vec<Place>, usize> = HashMap::new();
    for mut places in boxes {
        let place = std::mem::take(&mut places[dimension]);
        if let Some(&index) = by_rest.get(&places) {
            merged[index][dimension].extend(place);
        } else {
            by_rest.insert(places.clone(), merged.len());
            places[dimension] = place;
            merged.push(places);
        }
    }
    for places in &mut merged {
        places[dimension].sort_unstable();
        places[dimension].dedup();
    }
    merged
}

fn write_place(place: &[Number], out: &mut String) {
    let runs = runs(place);
    if let [(low, high)] = runs[..]
        && low == high
    {
        return write_number(low, out);
    }
    for (index, &(low, high)) in runs.iter().enumerate() {
        out.push(if index == 0 { '[' } else { ',' });
        write_number(low, out);
        if high != low {
            out.push('-');
            write_number(high, out);
        }
    }
    out.push(']');
}

/// The runs that make up a sorted place. `08` is followed by `09` and `10`, `8` by `9` and `10`: a number that both
/// runs could take goes to the first.
fn runs(place: &[Number]) -> Vec<(Number, Number)> {
    let mut taken = vec![false; place.len()];
    let mut runs = Vec::new();
    for start in 0..place.len() {
        if taken[start] {
            continue;
        }
        let (low, width) = place[start];
        let padding = if width > digits(low) { width } else { 0 };
        let mut high = place[start];
        let mut from = start;
        loop {
            let next = (high.0 + 1, digits(high.0 + 1).max(padding));
            // Sorted, so what follows lies behind; at most 18 widths of one value lie between.
            let Ok(found) = place[from..].binary_search(&next) else { break };
            from += found;
            if taken[from] {
                break;
            }
            taken[from] = true;
            high = next;
        }
        runs.push((place[start], high));
    }
    runs
}

fn digits(value: u64) -> usize {
    value.checked_ilog10().map_or(1, |log| log as usize + 1)
}

fn write_number((value, width): Number, out: &mut String) {
    out.push_str(&format!("{value:0width$}"));
}

#[cfg(test)]
mod tests {
    use super::fold;

    #[test]
    fn names_fold_to_the_notation_they_came_from() {
        for (names, folded) in [
            ("web1", "web1"),
            ("web1 web2 web3 web7", "web[1-3,7]"),
            ("web08 web09 web10 web11", "web[08-11]"),
            ("web7 web07 web8", "web[7-8,07]"),
            ("db1x1 db1x2 db2x1 db2x2", "db[1-2]x[1-2]"),
            ("db1x1 db1x2 db2x1", "db1x[1-2],db2x1"),
            ("a1 b1 a2", "a[1-2],b1"),
            ("jump/web1/local jump/web2/local", "jump/web[1-2]/local"),
            ("10.0.0.1 10.0.0.2 10.0.1.1 10.0.1.2", "10.0.[0-1].[1-2]"),
            ("[::1]:22 [::2]:22", "[::1]:22,[::2]:22"),
            ("n1234567890123456789012 n1", "n1234567890123456789012,n1"),
            ("local local", "local"),
        ] {
            assert_eq!(fold(&names.split(' ').collect::<Vec<_>>()), folded);
        }
    }

    #[test]
    fn a_hundred_thousand_names_fold_in_a_moment() {
        let names: Vec<String> = (0..100_000).map(|n| format!("r{}n{}", n / 100, n % 100)).collect();
        assert_eq!(fold(&names), "r[0-999]n[0-99]");
    }
}
