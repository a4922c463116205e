//! Which way and which engine every convolution takes, decided for all of them at once, before the
//! first step.
//!
//! 1. What differs in the number of images alone is one question: the largest leads, the others
//!    (tails of a pass, mostly) take its way and its engine.
//! 2. Where engines are tuned, the problems of all leading ways that were never measured are:
//!    candidates are built on threads, then run alone on the GPU. The heuristics' first stays
//!    unless another one is clearly faster; so does the first way.
//! 3. What was chosen and is not built yet is: from its kept plan, by its tag, or as the heuristics
//!    say.

use std::time::SystemTime;

use super::api::{Answer, Class, Refusal};
use super::build::{Most, Order, build};
use super::cache::Entry;
use super::engine::Plan;
use super::graph::{Problem, graph};
use super::measure::Gauge;
use super::ways::{Ask, Way};
use super::{Found, Handle, Taken};
use crate::base::Result;
use crate::device::cuda::options::{Autotune, Choosing};

/// What a measurement must fall below, of the time of what is trusted: less may be noise.
const CLEARLY: f64 = 0.97;

/// The index of the least, if it is clearly less than the first.
fn least(costs: impl Iterator<Item = f64>) -> Option<usize> {
    let costs: Vec<f64> = costs.collect();
    let best = (0..costs.len()).min_by(|&a, &b| costs[a].total_cmp(&costs[b]))?;
    Some(if costs[best] < CLEARLY * costs[0] { best } else { 0 })
}

impl Handle {
    /// Chooses for everything that was asked for since the last time.
    pub fn decide(&mut self) -> Result<()> {
        let open: Vec<usize> = (0..self.asks.len()).filter(|&i| self.taken[i].is_none()).collect();
        if open.is_empty() {
            return Ok(());
        }
        let (leaders, followers): (Vec<usize>, Vec<usize>) =
            open.iter().partition(|&&i| self.leader(i) == i);
        let first = self.unmeasured(&leaders, 0);
        self.new = open.iter().filter(|&&i| !self.is_kept(i)).count();
        self.open = open;
        self.tell()?;
        self.measure(first)?;
        self.measure(self.unmeasured(&leaders, 1))?;
        for asks in [leaders, followers] {
            for share in asks.chunks(self.lanes.share()) {
                self.take(share)?;
            }
        }
        self.cache.keep();
        let total = std::mem::take(&mut self.open).len();
        self.watch.tell(Choosing { done: total, total, new: self.new })
    }

    /// Tells whoever watches how many of what is open are decided, or as good as that: all of them
    /// are at the very end only.
    fn tell(&self) -> Result<()> {
        let is_done = |&&i: &&usize| {
            let ask = self.asks[i];
            self.taken[i].is_some() || self.answers.contains_key(&ask.problem(ask.ways()[0]))
        };
        let (done, total) = (self.open.iter().filter(is_done).count(), self.open.len());
        self.watch.tell(Choosing { done: done.min(total - 1), total, new: self.new })
    }

    fn tunes(&self) -> bool {
        matches!(self.autotune, Autotune::Load | Autotune::Exhaustive)
    }

    /// The ask that ask `i` does as: the one with most images of those that differ in nothing else.
    fn leader(&self, i: usize) -> usize {
        let alike = (0..self.asks.len()).filter(|&j| self.asks[j].is_like(&self.asks[i]));
        match self.autotune {
            Autotune::Off => i,
            _ => alike.max_by_key(|&j| self.asks[j].spec.n).unwrap_or(i),
        }
    }

    /// What was chosen for `problem` before.
    fn kept(&self, problem: &Problem) -> Option<Entry> {
        let entry = match self.autotune {
            Autotune::Off | Autotune::Exhaustive => None,
            Autotune::Cached | Autotune::Load => self.cache.get(&self.key(problem)).cloned(),
        };
        // A plan's text may hold a kernel, which is for one driver.
        entry.map(|entry| Entry {
            plan: entry.plan.filter(|_| entry.driver == self.driver),
            ..entry
        })
    }

    /// Whether a plan for ask `i` need not be built anew.
    fn is_kept(&self, i: usize) -> bool {
        let ask = self.asks[i];
        ask.ways()
            .into_iter()
            .any(|way| self.kept(&ask.problem(way)).is_some_and(|entry| entry.plan.is_some()))
    }

    /// Problems that are to be measured for `leaders`: of their first ways, or of the others, now
    /// that it is known whether the first exist.
    fn unmeasured(&self, leaders: &[usize], from: usize) -> Vec<(Problem, Most)> {
        let mut wanted: Vec<(Problem, Most)> = Vec::new();
        for &i in leaders.iter().filter(|_| self.tunes()) {
            let (ask, ways) = (self.asks[i], self.asks[i].ways());
            let is_refused = matches!(self.answers.get(&ask.problem(ways[0])), Some(Err(_)));
            let most = match (self.autotune, from > 0 && !is_refused) {
                (Autotune::Exhaustive, _) => Most::All,
                (_, true) => Most::One,
                (_, false) => Most::Shortlist,
            };
            let ways = match from {
                0 => &ways[..1],
                _ if is_refused => &ways[1..],
                _ if ask.compares() => &ways[1..2],
                _ => &[],
            };
            for problem in ways.iter().map(|way| ask.problem(*way)) {
                let is_known = self.answers.contains_key(&problem)
                    || self.kept(&problem).is_some_and(|entry| entry.microseconds.is_some())
                    || wanted.iter().any(|(other, _)| *other == problem);
                if !is_known {
                    wanted.push((problem, most));
                }
            }
        }
        wanted
    }

    fn build(&mut self, orders: &[Order]) -> Result<Vec<Answer<Vec<Plan>>>> {
        let deterministic = self.deterministic;
        // Graphs are made here and now: it takes no time, and what they refer to is not shared.
        let built = self.lanes.each(
            orders,
            |lane, order| {
                graph(lane, &order.problem).map_err(|refusal| refusal.at("operation graph"))
            },
            |lane, order, graph| build(lane, order, graph, deterministic),
        );
        built.map_err(|refusal| self.error("choosing engines".into(), &refusal))
    }

    /// Builds candidates for each problem, measures them, and keeps the best.
    fn measure(&mut self, wanted: Vec<(Problem, Most)>) -> Result<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        let gauge = Gauge::new(self.stream);
        let mut gauge = gauge.map_err(|refusal| self.error("choosing engines".into(), &refusal))?;
        for share in wanted.chunks(self.lanes.share()) {
            let order = |&(problem, most)| Order {
                problem,
                hint: None,
                bad: self.cache.bad(&self.key(&problem)),
                most,
            };
            let orders: Vec<Order> = share.iter().map(order).collect();
            let built = self.build(&orders)?;
            for (Order { problem, .. }, plans) in orders.into_iter().zip(built) {
                let answer = match plans {
                    Ok(plans) => self.fastest(&mut gauge, &problem, plans)?,
                    Err(refusal) => Err(refusal),
                };
                self.answers.insert(problem, answer);
                self.tell()?;
            }
            self.cache.keep();
        }
        Ok(())
    }

    /// The heuristics' first of `plans`, or one that is clearly faster. Where memory does not
    /// suffice to measure, it is the first. Errors: one of them failed on the GPU, which is noted,
    /// so that the next start does without it.
    fn fastest(
        &mut self,
        gauge: &mut Gauge,
        problem: &Problem,
        mut plans: Vec<Plan>,
    ) -> Result<Answer<Found>> {
        let (key, mut times, mut refusal) = (self.key(problem), Vec::new(), None);
        for (i, plan) in plans.iter().enumerate() {
            match gauge.time(plan, problem) {
                Ok(microseconds) => times.push((i, microseconds)),
                Err(e) if e.class == Class::Memory => {
                    let first = plans.swap_remove(0);
                    return Ok(Ok(Found { entry: self.entry(&first), plan: first.into() }));
                }
                Err(e) if e.class == Class::Unsupported => {
                    refusal = Some(e.at(&format!("running {}", plan.tag)))
                }
                Err(e) => {
                    self.cache.condemn(key, &plan.tag);
                    self.cache.keep();
                    let what = Refusal {
                        text: format!("it failed while it was measured: {}", e.text),
                        ..e
                    };
                    return Err(self.error(format!("engine {} for the {problem}", plan.tag), &what));
                }
            }
        }
        let Some(best) = least(times.iter().map(|&(_, us)| f64::from(us))) else {
            return Ok(Err(
                refusal.unwrap_or_else(|| Refusal::unsupported("none of its engines runs"))
            ));
        };
        let (at, microseconds) = times[best];
        let rest = times.iter().filter(|&&(i, _)| i != at).min_by(|a, b| a.1.total_cmp(&b.1));
        let runner_up = rest.map(|&(i, us)| (plans[i].tag.clone(), us));
        let plan = plans.swap_remove(at);
        let first = Some(times[0].1);
        let entry = Entry {
            microseconds: Some(microseconds),
            runner_up,
            first,
            plan: plan.text(),
            ..self.entry(&plan)
        };
        self.cache.put(key, entry.clone());
        Ok(Ok(Found { entry, plan: plan.into() }))
    }

    /// What is known of a plan that was not measured.
    fn entry(&self, plan: &Plan) -> Entry {
        Entry {
            tag: plan.tag.clone(),
            workspace: plan.workspace,
            notes: plan.notes.clone(),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            driver: self.driver,
            ..Entry::default()
        }
    }

    /// The ways of ask `i`, the one to take first.
    fn ranked(&self, i: usize) -> Vec<Way> {
        let (ask, mut ways) = (self.asks[i], self.asks[i].ways());
        let leader = self.taken[self.leader(i)].as_ref();
        let best = match leader {
            Some(leader) => ways.iter().position(|way| way.operation == leader.way.operation),
            None => self.cheapest(&ask, &ways),
        };
        let best = ways.remove(best.unwrap_or(0));
        ways.insert(0, best);
        ways
    }

    /// The cheaper of the first two ways that exist, where the times of both are known.
    fn cheapest(&self, ask: &Ask, ways: &[Way]) -> Option<usize> {
        let exists = |i: &usize| !matches!(self.answers.get(&ask.problem(ways[*i])), Some(Err(_)));
        let left: Vec<usize> = (0..ways.len()).filter(exists).take(2).collect();
        let costs = left.iter().map(|&i| self.cost(ask, ways[i])).collect::<Option<Vec<f64>>>()?;
        least(costs.into_iter()).filter(|_| ask.compares()).map(|best| left[best])
    }

    /// Microseconds, where it was measured.
    pub(super) fn cost(&self, ask: &Ask, way: Way) -> Option<f64> {
        let problem = ask.problem(way);
        let microseconds = match self.answers.get(&problem) {
            Some(answer) => answer.as_ref().ok()?.entry.microseconds,
            None => self.kept(&problem)?.microseconds,
        };
        Some(way.cost(microseconds?, self.bandwidth))
    }

    /// What is known of the engine that ask `i` should have for `problem`.
    fn hint(&self, i: usize, problem: &Problem) -> Option<Entry> {
        let (kept, leader) = (self.kept(problem), self.leader(i));
        let Some(led) = self.taken[leader].as_ref().filter(|led| led.choice.microseconds.is_some())
        else {
            return kept;
        };
        let kept = kept.filter(|entry| entry.microseconds.is_some() || entry.like.is_some());
        let like = Some(self.asks[leader].spec.n);
        kept.or_else(|| Some(Entry { tag: led.plan.tag.clone(), like, ..Entry::default() }))
    }

    /// Gives every one of `asks` its first way that an engine takes.
    fn take(&mut self, asks: &[usize]) -> Result<()> {
        // With the ways that are left to try.
        let mut open: Vec<(usize, Vec<Way>)> = asks.iter().map(|&i| (i, self.ranked(i))).collect();
        while !open.is_empty() {
            let mut orders: Vec<(usize, Order)> = Vec::new();
            for (i, ways) in &open {
                let problem = self.asks[*i].problem(ways[0]);
                let is_ordered = orders.iter().any(|(_, order)| order.problem == problem);
                if !is_ordered && !self.answers.contains_key(&problem) {
                    let (hint, bad) =
                        (self.hint(*i, &problem), self.cache.bad(&self.key(&problem)));
                    orders.push((*i, Order { problem, hint, bad, most: Most::One }));
                }
            }
            let (askers, orders): (Vec<usize>, Vec<Order>) = orders.into_iter().unzip();
            let built = self.build(&orders)?;
            for ((i, order), plans) in askers.into_iter().zip(orders).zip(built) {
                self.keep(i, order, plans)?;
            }
            for (i, mut ways) in std::mem::take(&mut open) {
                let (ask, way) = (self.asks[i], ways.remove(0));
                match &self.answers[&ask.problem(way)] {
                    Ok(found) => {
                        let (plan, choice) = (found.plan.clone(), self.choice(&ask, way, found));
                        self.taken[i] = Some(Taken { way, plan, choice });
                        self.warn(&ask);
                    }
                    Err(_) if ways.is_empty() => return Err(self.no_way(&ask)),
                    Err(_) => open.push((i, ways)),
                }
            }
        }
        self.tell()
    }

    /// Keeps what was built for ask `i`. A leader whose remembered engine is not offered any more
    /// is measured anew.
    fn keep(&mut self, i: usize, order: Order, plans: Answer<Vec<Plan>>) -> Result<()> {
        let Order { problem, hint, .. } = order;
        let plan = match plans {
            Ok(mut plans) => plans.swap_remove(0),
            Err(refusal) => {
                self.answers.insert(problem, Err(refusal));
                return Ok(());
            }
        };
        let known = match hint {
            Some(hint) if hint.tag == plan.tag => hint,
            Some(_) if self.tunes() && self.leader(i) == i => {
                return self.measure(vec![(problem, Most::Shortlist)]);
            }
            // Engines differ with the number of images now and then: it is the nearest.
            Some(hint) => Entry { like: hint.like, ..Entry::default() },
            None => Entry::default(),
        };
        let entry = Entry {
            microseconds: known.microseconds,
            like: known.like,
            runner_up: known.runner_up,
            first: known.first,
            ..self.entry(&plan)
        };
        if self.autotune != Autotune::Off && !plan.is_restored {
            self.cache.put(self.key(&problem), Entry { plan: plan.text(), ..entry.clone() });
        }
        self.answers.insert(problem, Ok(Found { entry, plan: plan.into() }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_trusted_stays_unless_another_is_clearly_less() {
        assert_eq!(least([10.0, 9.8, 12.0].into_iter()), Some(0));
        assert_eq!(least([10.0, 9.6, 9.5].into_iter()), Some(2));
        assert_eq!(least(std::iter::empty()), None);
    }
}
