use proxy_common::wire::{Backend, BackendFlags, Config, Frontend, FrontendKey, ServiceName};

use super::{
    port::{Dropped, PlacedBackend, Placement, Port},
    report::Writes,
    space::{Freed, Space},
    tables::{TableError, Tables},
};
use crate::{desired::ServicePortName, model::Algorithm};

/// The writes of one pass.
#[derive(Debug, Default)]
pub(super) struct Batch {
    rows: Vec<(u32, Backend)>,
    slots: Vec<(u32, Vec<u32>)>,
    maglev: Vec<(u32, Vec<u32>)>,
    names: Vec<(u32, ServiceName)>,
    /// Id, flags and generation of rows that stay.
    flags: Vec<(u32, u32, u32)>,
    pub config: Option<Config>,
    /// Keys whose value has to be looked at.
    pub touched: Vec<FrontendKey>,
    pub puts: Vec<(FrontendKey, Frontend)>,
    pub deletes: Vec<FrontendKey>,
    retired: Vec<(u32, u32, u32)>,
    pub nameless: Vec<u32>,
    /// What nothing names once all is written.
    pub freed: Freed,
}

impl Batch {
    /// Adds the writes of a service port; returns what it is from now on.
    pub fn add(&mut self, placement: Placement, space: &mut Space) -> Port {
        let Placement { port, is_named_anew, taken: _, rows, flags, slots, maglev, dropped } = placement;
        self.rows.extend(rows);
        self.slots.extend(slots);
        self.maglev.extend(maglev);
        self.flags.extend(flags.into_iter().map(|(id, flags)| (id, flags, space.generation(id))));
        if is_named_anew {
            self.names.extend(name_row(&port.name, port.algorithm).map(|row| (port.id, row)));
        }
        self.drop_all(dropped, space);
        port
    }

    /// Removes all that a service port has in the maps but its frontends.
    pub fn remove(&mut self, port: Port, space: &mut Space) {
        self.drop_all(Dropped { backends: port.backends, sets: port.sets }, space);
        self.nameless.push(port.id);
        self.freed.services.push(port.id);
    }

    fn drop_all(&mut self, dropped: Dropped, space: &mut Space) {
        for backend in dropped.backends {
            self.retire(&backend, space);
        }
        for set in dropped.sets {
            self.freed.slots.push((set.place.base, set.place.count));
            if set.place.maglev_size != 0 {
                self.freed.maglev.push((set.place.maglev_base, set.place.maglev_size));
            }
        }
    }

    /// The row keeps its address and owner for readers that are on their way to it.
    pub fn retire(&mut self, backend: &PlacedBackend, space: &mut Space) {
        let flags = backend.flags() & !BackendFlags::SERVING;
        self.retired.push((backend.id, flags, space.raise_generation(backend.id)));
        self.freed.backends.push(backend.id);
    }

    /// Writes everything in the one order in which a packet, at any moment, finds either the old set of a service
    /// whole or the new one.
    pub fn write(&self, tables: &mut impl Tables, writes: &mut Writes) -> Result<(), TableError> {
        // New rows, sets and lookup tables, in places that no frontend names.
        self.write_places(tables, writes);
        // Names first, so that whatever a frontend names can be shown and adopted.
        self.put_names(tables, writes)?;
        // The range of NodePorts before the NodePorts: a frontend out of range would not be found.
        self.put_config(tables, writes)?;
        // The switch.
        self.put_frontends(tables, writes)?;
        self.delete_frontends(tables, writes)?;
        // Only now: before, a packet could have been given a backend that it may not keep.
        self.retire_rows(tables, writes);
        // Names last, for the same reason as first.
        self.delete_names(tables, writes)
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
    }

    fn put_names(&self, tables: &mut impl Tables, writes: &mut Writes) -> Result<(), TableError> {
        if self.names.is_empty() {
            return Ok(());
        }
        writes.services += self.names.len() as u64;
        tables.put_services(&self.names)
    }

    fn put_config(&self, tables: &mut impl Tables, writes: &mut Writes) -> Result<(), TableError> {
        let Some(config) = &self.config else { return Ok(()) };
        writes.config += 1;
        tables.set_config(config)
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
        writes.services += self.nameless.len() as u64;
        tables.delete_services(&self.nameless)
    }
}

/// `None` for a name that is too long, which the model lets nobody have.
fn name_row(name: &ServicePortName, algorithm: Algorithm) -> Option<ServiceName> {
    Some(ServiceName {
        namespace: ServiceName::field(&name.namespace)?,
        name: ServiceName::field(&name.name)?,
        port: ServiceName::field(&name.port)?,
        protocol: name.protocol.number(),
        algorithm: match algorithm {
            Algorithm::Random => 0,
            Algorithm::Maglev => 1,
        },
        pad: [0; 2],
    })
}
