"use strict";

// Shows names in all the ways in which pages do.
{
  const { data, element, name, section, figures, table, show } = adder;
  show(
    element("h1", {}, name(data.rows[0].name, 200)),
    figures(data.rows.map((row) => [String(row.number), name(row.name, 30)])),
    section(
      "Names",
      table(
        [
          { title: "name", value: (row) => row.name, show: (row) => name(row.name) },
          { title: "number", value: (row) => row.number, number: true },
          { title: "even", value: (row) => row.even, number: true },
        ],
        data.rows,
      ),
    ),
  );
}
