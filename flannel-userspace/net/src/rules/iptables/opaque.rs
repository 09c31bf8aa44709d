//! Tables that `iptables-save` does not print, because somebody has put a rule of nftables' own into one of their
//! chains (`nft_is_table_compatible`). A chain that is named alone is printed if it has no such rule. Of one that has,
//! iptables only tells whether a certain rule stands in it, as it does when stock flannel asks.

use super::super::RulesError;
use super::super::nftables;
use super::plan::Chain;
use super::saved::{Line, Saved};
use super::{Names, Tool};

/// Reads what matters of every table that `saved` has not got.
pub(super) async fn complete(tool: &Tool, saved: &mut Saved, names: &Names) -> Result<(), RulesError> {
    for table in saved.opaque_tables() {
        for chain in chains_of(&table, names) {
            read(tool, saved, &table, chain).await?;
        }
    }
    Ok(())
}

/// Our chains of a table, also by stock flannel's names.
fn chains_of<'a>(table: &str, names: &'a Names) -> Vec<Chain<'a>> {
    let of = |parent, name, comment| Chain { parent, name, comment };
    let mut chains = match table {
        "nat" => vec![
            of("POSTROUTING", &names.postrouting, super::MASQUERADE),
            of("POSTROUTING", "FLANNEL-POSTRTG", super::MASQUERADE),
        ],
        "filter" => {
            vec![of("FORWARD", &names.forward, super::FORWARD), of("FORWARD", "FLANNEL-FWD", super::FORWARD)]
        }
        "mangle" => vec![of("POSTROUTING", &names.guard, super::GUARD)],
        _ => Vec::new(),
    };
    chains.dedup_by_key(|chain| chain.name);
    chains
}

async fn read(tool: &Tool, saved: &mut Saved, table: &str, chain: Chain<'_>) -> Result<(), RulesError> {
    let Chain { parent, name, .. } = chain;
    for printed in [name, parent] {
        match tool.main.run(&["-t", table, "-S", printed], "").await {
            Ok(text) => saved.add(table, &text),
            Err(RulesError::Failed { .. }) if printed == parent => {
                let jump = chain.jump();
                let count = count(tool, table, chain, &jump).await?;
                saved.table_mut(table).add_opaque(parent, &jump, count);
            }
            // It is not there, whatever iptables calls that beside such rules.
            Err(RulesError::Failed { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// How often the jump to a chain stands in its parent.
async fn count(tool: &Tool, table: &str, chain: Chain<'_>, jump: &Line) -> Result<usize, RulesError> {
    let question = ["-t", table, "-C", chain.parent];
    let words = jump.words();
    let arguments: Vec<&str> = question.into_iter().chain(words.iter().map(String::as_str)).collect();
    match tool.main.run(&arguments, "").await {
        // Only nft can count them.
        Ok(_) => Ok(nftables::jumps(table, chain.parent, chain.name).await.unwrap_or(1).max(1)),
        Err(RulesError::Failed { .. }) => Ok(0),
        Err(error) => Err(error),
    }
}
