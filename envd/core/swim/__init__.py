"""SWIM with Lifeguard, without I/O: who belongs to the cluster, and who of them lives.

    config       every parameter, its formula, where it comes from
    chance       choosing, by a given source of chance
    messages     what nodes tell each other
    events       what happens to the machine, and what it wants done
    timers       what is due when
    table        the members that are known, and what overrules what
    rounds       whom of them to choose next, and whom by chance
    regions      who speaks for a region with the others
    reach        whom this node speaks to: its region at LAN pace, other gateways at WAN pace
    suspicion    how long a suspect has to answer
    health       how well this node believes itself to be
    broadcasts   a queue of news
    beliefs      what news means for the table, and for this node
    sending      datagrams, filled up with news
    probe        who is asked whether it lives
    relays       who is asked that for another node
    contacts     with whom all is exchanged; seeds; members that are down
    machine      the whole: `Swim.handle(event, now_ms) -> effects`, `Swim.due_ms`

Das, Gupta, Motivala 2002, "SWIM: Scalable Weakly-consistent Infection-style Process Group
Membership Protocol"; Dadgar, Phillips, Currey 2017, "Lifeguard: SWIM-ing with Situational
Awareness"; the constants are those of hashicorp/memberlist, which has carried both for years.
"""
