//! Extraction: one node for each class that the roots need, so that the whole costs least.
//!
//! A node that several users share is paid once. First every class chooses, bottom up and to a fixed point, the node whose
//! reachable set of classes costs least; then single choices are changed as long as the total of the roots falls.

use super::lang::{EGraph, Node};
use egg::Id;
use std::collections::{HashMap, HashSet};

/// Rounds of each of the two phases; they end earlier where nothing changes.
const ROUNDS: usize = 50;

/// Chooses a node for every class from which a finite form exists.
pub fn extract(eg: &EGraph, roots: &[Id], cost: &dyn Fn(&Node) -> f64) -> HashMap<Id, Node> {
    let mut search = Search::new(eg, cost);
    search.bottom_up();
    search.improve(roots);
    let Search { classes, nodes, chosen, .. } = search;
    classes
        .iter()
        .zip(nodes)
        .zip(chosen)
        .filter_map(|((class, mut nodes), choice)| Some((*class, nodes.swap_remove(choice?).node)))
        .collect()
}

/// The classes that the roots need under `choice`, each after its inputs.
pub fn order(eg: &EGraph, roots: &[Id], choice: &HashMap<Id, Node>) -> Vec<Id> {
    let mut done: HashSet<Id> = HashSet::new();
    let mut order = Vec::new();
    // Explicit stack: a model may be deeper than a thread's stack.
    let mut stack: Vec<(Id, bool)> = roots.iter().rev().map(|r| (eg.find(*r), false)).collect();
    while let Some((class, inputs_done)) = stack.pop() {
        if inputs_done {
            order.push(class);
        } else if done.insert(class) {
            stack.push((class, true));
            stack.extend(choice[&class].children.iter().rev().map(|c| (eg.find(*c), false)));
        }
    }
    order
}

struct Candidate {
    node: Node,
    /// Indices of the classes of its children, without repetition.
    children: Vec<usize>,
    cost: f64,
}

/// A set of class indices.
#[derive(Clone, PartialEq)]
struct Set(Vec<u64>);

impl Set {
    fn new(n: usize) -> Set {
        Set(vec![0; n.div_ceil(64)])
    }
    fn insert(&mut self, i: usize) {
        self.0[i / 64] |= 1 << (i % 64);
    }
    fn contains(&self, i: usize) -> bool {
        self.0[i / 64] >> (i % 64) & 1 == 1
    }
    fn union(&mut self, other: &Set) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a |= b);
    }
    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(w, &bits)| {
            let mut bits = bits;
            std::iter::from_fn(move || {
                let at = bits.trailing_zeros() as usize;
                (bits != 0).then(|| {
                    bits &= bits - 1;
                    w * 64 + at
                })
            })
        })
    }
}

struct Search {
    classes: Vec<Id>,
    index: HashMap<Id, usize>,
    nodes: Vec<Vec<Candidate>>,
    chosen: Vec<Option<usize>>,
    /// The classes that a class's choice reaches, itself included.
    reach: Vec<Set>,
    /// Classes with a node that has this one as a child.
    parents: Vec<Vec<usize>>,
}

impl Search {
    fn new(eg: &EGraph, cost: &dyn Fn(&Node) -> f64) -> Search {
        let mut classes: Vec<Id> = eg.classes().map(|c| c.id).collect();
        classes.sort();
        let index: HashMap<Id, usize> = classes.iter().enumerate().map(|(i, c)| (*c, i)).collect();
        let mut parents = vec![vec![]; classes.len()];
        let nodes: Vec<Vec<Candidate>> = classes
            .iter()
            .enumerate()
            .map(|(i, class)| {
                let mut candidates: Vec<Candidate> = eg[*class]
                    .nodes
                    .iter()
                    .map(|node| {
                        let mut children: Vec<usize> = node.children.iter().map(|c| index[&eg.find(*c)]).collect();
                        children.sort_unstable();
                        children.dedup();
                        children.iter().for_each(|&c| parents[c].push(i));
                        Candidate { node: node.clone(), children, cost: cost(node) }
                    })
                    .collect();
                candidates.sort_by(|a, b| a.node.cmp(&b.node));
                candidates
            })
            .collect();
        parents.iter_mut().for_each(|p| {
            p.sort_unstable();
            p.dedup();
        });
        let n = classes.len();
        Search { classes, index, nodes, chosen: vec![None; n], reach: vec![Set::new(n); n], parents }
    }

    fn own(&self, class: usize) -> f64 {
        self.chosen[class].map_or(f64::INFINITY, |c| self.nodes[class][c].cost)
    }

    /// What choosing `candidate` for `class` would reach, without the class itself; `None` where it has no finite form or
    /// needs the class itself.
    fn reached_by(&self, class: usize, candidate: &Candidate) -> Option<Set> {
        let mut set = Set::new(self.classes.len());
        for &c in &candidate.children {
            self.chosen[c]?;
            set.union(&self.reach[c]);
        }
        (!set.contains(class)).then_some(set)
    }

    fn bottom_up(&mut self) {
        for _ in 0..ROUNDS {
            let mut changed = false;
            for class in 0..self.classes.len() {
                let current = match self.chosen[class] {
                    Some(_) => self.reach[class].iter().map(|c| self.own(c)).sum(),
                    None => f64::INFINITY,
                };
                let best = (0..self.nodes[class].len())
                    .filter_map(|i| {
                        let candidate = &self.nodes[class][i];
                        let set = self.reached_by(class, candidate)?;
                        Some((i, candidate.cost + set.iter().map(|c| self.own(c)).sum::<f64>()))
                    })
                    .min_by(|a, b| a.1.total_cmp(&b.1));
                if let Some((i, total)) = best
                    && self.chosen[class] != Some(i)
                    && total < current * (1.0 - 1e-12) - 1e-9
                {
                    self.choose(class, i);
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
    }

    /// Sets a choice and brings the reach of all that depend on it up to date.
    fn choose(&mut self, class: usize, candidate: usize) {
        self.chosen[class] = Some(candidate);
        let mut queue = vec![class];
        while let Some(at) = queue.pop() {
            let Some(choice) = self.chosen[at] else { continue };
            let mut set = Set::new(self.classes.len());
            for &c in &self.nodes[at][choice].children {
                set.union(&self.reach[c]);
            }
            set.insert(at);
            if set == self.reach[at] && at != class {
                continue;
            }
            self.reach[at] = set;
            for &p in &self.parents[at] {
                if self.chosen[p].is_some_and(|c| self.nodes[p][c].children.contains(&at)) {
                    queue.push(p);
                }
            }
        }
    }

    fn needed(&self, roots: &[usize]) -> Set {
        let mut set = Set::new(self.classes.len());
        roots.iter().for_each(|r| set.union(&self.reach[*r]));
        set
    }

    /// Changes one choice at a time while the total of the roots falls.
    fn improve(&mut self, roots: &[Id]) {
        let roots: Vec<usize> = roots.iter().map(|r| self.index[r]).collect();
        let total = |s: &Search| s.needed(&roots).iter().map(|c| s.own(c)).sum::<f64>();
        let mut best = total(self);
        for _ in 0..ROUNDS {
            let mut changed = false;
            for class in self.needed(&roots).iter().collect::<Vec<_>>() {
                for i in 0..self.nodes[class].len() {
                    let Some(before) = self.chosen[class] else { break };
                    if i == before || self.reached_by(class, &self.nodes[class][i]).is_none() {
                        continue;
                    }
                    self.choose(class, i);
                    let new = total(self);
                    if new < best * (1.0 - 1e-12) - 1e-9 {
                        best = new;
                        changed = true;
                    } else {
                        self.choose(class, before);
                    }
                }
            }
            if !changed {
                break;
            }
        }
    }
}
