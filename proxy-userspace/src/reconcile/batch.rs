use std::time::Duration;

use proxy_common::wire::{
    Address, Backend, BackendFlags, Config, Filter, Frontend, FrontendKey, Scope, ServiceName, Sets,
};

use super::{
    filters::Filters,
    port::{Dropped, PlacedBackend, Placement, Port, name_row},
    report::Writes,
    space::{Freed, Space},
    tables::{TableError, Tables},
};
use crate::model::Family;

/// The writes of one pass.
#[derive(Debug, Default)]
pub(super) struct Batch {
    rows: Vec<(u32, Backend)>,
    slots: Vec<(u32, Vec<u32>)>,
    maglev: Vec<(u32, Vec<u32>)>,
    sets: Vec<(u32, Sets)>,
    names: Vec<(u32, ServiceName)>,
    /// Id, flags and generation of rows that stay.
    flags: Vec<(u32, u32, u32)>,
    pub config: Option<Config>,
    switches: Vec<(u32, Family, u32)>,
    /// Keys whose value has to be looked at.
    pub touched: Vec<FrontendKey>,
    pub puts: Vec<(FrontendKey, Frontend)>,
    /// Of these, the ones that were not there.
    pub new: Vec<FrontendKey>,
    pub deletes: Vec<FrontendKey>,
    /// A frontend has come or gone or has another owner.
    pub moves_frontends: bool,
    retired: Vec<(u32, u32, u32)>,
    /// Numbers of the endpoints that were retired.
    old_targets: Vec<u32>,
    pub nameless: Vec<u32>,
    /// What nothing names once all is written.
    pub freed: Freed,
}

impl Batch {
    /// Adds the writes of a service port; returns what it is from now on.
    pub fn add(&mut self, placement: Placement, space: &mut Space) -> Port {
        let Placement { port, is_named_anew, taken: _, rows, flags, slots, maglev, sets, switches, dropped } =
            placement;
        self.rows.extend(rows);
        self.slots.extend(slots);
        self.maglev.extend(maglev);
        self.sets.extend(sets);
        self.flags.extend(flags.into_iter().map(|(id, flags)| (id, flags, space.generation(id))));
        if is_named_anew {
            self.names.extend(name_row(&port.name, port.algorithm).map(|row| (port.id, row)));
        }
        for (family, sets) in switches {
            space.set_named(port.id, family, sets);
            self.switches.push((port.id, family, sets));
        }
        self.drop_all(dropped, port.name.protocol.number(), space);
        port
    }

    /// Removes all that a service port has in the maps but its frontends.
    pub fn remove(&mut self, port: Port, space: &mut Space) {
        let protocol = port.name.protocol.number();
        self.nameless.push(port.id);
        self.freed.services.push(port.id);
        self.drop_all(port.into_dropped(space), protocol, space);
    }

    fn drop_all(&mut self, dropped: Dropped, protocol: u8, space: &mut Space) {
        let Dropped { backends, places } = dropped;
        for PlacedBackend { id, endpoint } in backends {
            let flags = if endpoint.local { BackendFlags::LOCAL } else { 0 };
            let number = Filter::target(&Address::from(endpoint.address), endpoint.port.to_be(), protocol);
            self.retire(id, flags, number, space);
        }
        self.freed += places;
    }

    /// The row keeps its address and owner for readers that are on their way to it. `flags` are those that it keeps,
    /// `number` is that of its endpoint in the filter.
    pub fn retire(&mut self, id: u32, flags: u32, number: u32, space: &mut Space) {
        self.retired.push((id, flags & !BackendFlags::SERVING, space.raise_generation(id)));
        self.old_targets.push(number);
        self.freed.backends.push(id);
    }

    /// Whether what flows know about their frontends and backends may have become wrong.
    pub fn disturbs_flows(&self) -> bool {
        self.moves_frontends || !self.retired.is_empty()
    }

    /// Writes everything in the one order in which a packet, at any moment, finds either the old set of a service
    /// whole or the new one, and never anything of another service.
    pub fn write(
        &self,
        tables: &mut impl Tables,
        filters: &mut Filters,
        now: Duration,
        writes: &mut Writes,
    ) -> Result<(), TableError> {
        // Who is asked about has to be known as one to ask about.
        self.set_filters(tables, filters, writes);
        // New rows, lookup tables and sets, in places that nothing names.
        self.write_places(tables, writes);
        // Names first, so that whatever a frontend names can be shown and adopted.
        self.put_names(tables, writes)?;
        // The range of NodePorts before the NodePorts: a frontend out of range would not be found.
        self.put_config(tables, writes);
        // The switch. It comes before the frontends: those of a new service would find nothing.
        self.switch(tables, writes);
        self.put_frontends(tables, writes)?;
        self.delete_frontends(tables, writes)?;
        // Only now: before, a packet could have been given a backend that it may not keep.
        self.retire_rows(tables, writes);
        // Names last, for the same reason as first.
        self.delete_names(tables, writes)?;
        self.clear_filters(filters, now);
        Ok(())
    }

    fn set_filters(&self, tables: &mut impl Tables, filters: &mut Filters, writes: &mut Writes) {
        for number in self.new.iter().filter_map(frontend_number) {
            filters.frontends.want(tables, number, writes);
        }
        for (_, row) in &self.rows {
            filters.targets.want(tables, Filter::target(&row.address, row.port, row.protocol), writes);
        }
    }

    fn clear_filters(&self, filters: &mut Filters, now: Duration) {
        self.deletes.iter().filter_map(frontend_number).for_each(|number| filters.frontends.drop(number, now));
        self.old_targets.iter().for_each(|&number| filters.targets.drop(number, now));
    }

    fn write_places(&self, tables: &mut impl Tables, writes: &mut Writes) {
        writes.backends += (self.rows.len() + self.flags.len()) as u64;
        self.rows.iter().for_each(|&(id, row)| tables.set_backend(id, row));
        self.flags.iter().for_each(|&(id, flags, generation)| tables.set_backend_state(id, flags, generation));
        for (base, members) in &self.slots {
            writes.slots += members.len() as u64;
            tables.set_slots(*base, members);
        }
        for (base, table) in &self.maglev {
            writes.maglev += table.len() as u64;
            tables.set_maglev(*base, table);
        }
        writes.sets += self.sets.len() as u64;
        self.sets.iter().for_each(|&(index, row)| tables.set_sets(index, row));
    }

    fn put_names(&self, tables: &mut impl Tables, writes: &mut Writes) -> Result<(), TableError> {
        if self.names.is_empty() {
            return Ok(());
        }
        writes.names += self.names.len() as u64;
        tables.put_names(&self.names)
    }

    fn put_config(&self, tables: &mut impl Tables, writes: &mut Writes) {
        if let Some(config) = &self.config {
            writes.config += 1;
            tables.set_config(config);
        }
    }

    fn switch(&self, tables: &mut impl Tables, writes: &mut Writes) {
        writes.services += self.switches.len() as u64;
        self.switches.iter().for_each(|&(id, family, sets)| tables.set_service(id, family, sets));
    }

    fn put_frontends(&self, tables: &mut impl Tables, writes: &mut Writes) -> Result<(), TableError> {
        if self.puts.is_empty() {
            return Ok(());
        }
        writes.frontends += self.puts.len() as u64;
        tables.put_frontends(&self.puts)
    }

    fn delete_frontends(&self, tables: &mut impl Tables, writes: &mut Writes) -> Result<(), TableError> {
        if self.deletes.is_empty() {
            return Ok(());
        }
        writes.frontends += self.deletes.len() as u64;
        tables.delete_frontends(&self.deletes)
    }

    fn retire_rows(&self, tables: &mut impl Tables, writes: &mut Writes) {
        writes.backends += self.retired.len() as u64;
        self.retired.iter().for_each(|&(id, flags, generation)| tables.set_backend_state(id, flags, generation));
    }

    fn delete_names(&self, tables: &mut impl Tables, writes: &mut Writes) -> Result<(), TableError> {
        if self.nameless.is_empty() {
            return Ok(());
        }
        writes.names += self.nameless.len() as u64;
        tables.delete_names(&self.nameless)
    }
}

/// The number of a frontend in the filter. NodePorts have none of their own: the addresses that they answer on have.
pub(super) fn frontend_number(key: &FrontendKey) -> Option<u32> {
    (key.scope == Scope::ADDRESS).then(|| Filter::frontend(&key.address))
}
