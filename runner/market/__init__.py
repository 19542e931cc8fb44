"""Pure rules of markets: symbols, schemas, candles. No I/O, no clock."""
