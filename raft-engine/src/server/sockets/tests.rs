//! Both back ends against real files.
