//! The cloud whose route tables carry the packets, in words.

use comfy_table::Cell;
use flannel_control::socket::{Cloud, CloudTable};

use super::page::cell;
use super::units;

/// What there is to say of a cloud.
pub(super) fn pairs(cloud: &Cloud) -> Vec<(&'static str, Cell)> {
    let Cloud { target, place, tables, in_step_seconds } = cloud;
    let seen = match in_step_seconds {
        Some(_) => format!("in step {}", units::ago(*in_step_seconds)),
        None => "not in step yet".to_owned(),
    };
    let mut pairs = vec![("cloud", cell(format!("{target} in {place}, {seen}")))];
    pairs.extend(tables.iter().map(|table| ("table", cell(text(table)))));
    pairs
}

fn text(CloudTable { id, used, limit }: &CloudTable) -> String {
    match limit {
        Some(limit) => format!("{id}, {used} of {limit} routes used"),
        None => format!("{id}, {used} routes"),
    }
}

#[cfg(test)]
mod tests {
    use flannel_control::socket::{Cloud, CloudTable};

    use super::pairs;

    #[test]
    fn tables_and_their_quotas_are_told() {
        let table = |limit| CloudTable { id: "rtb-1".to_owned(), used: 7, limit };
        let cloud = Cloud {
            target: "eni-1".to_owned(),
            place: "vpc-1".to_owned(),
            tables: vec![table(Some(500)), table(None)],
            in_step_seconds: None,
        };
        let texts: Vec<String> = pairs(&cloud).iter().map(|(_, cell)| cell.content()).collect();
        assert_eq!(
            texts,
            ["eni-1 in vpc-1, not in step yet", "rtb-1, 7 of 500 routes used", "rtb-1, 7 routes"]
        );
    }
}
