"""How fast the relay is, beside what else one could run. No part of the distribution."""
