/* join.pml: a reader that was behind the ring of a durable topic (its cursor does not gate) joins it by its hold, and gates again
 * at a later commit.  TSO store buffer.
 *
 * What C it stands for:
 *   Member    catch_up with assignment_join_ring (libshmq/consumer_history.c, assignment.c), give_up_views and take_views
 *             (consumer.c), assignment_commit with cursor_commit_gating (cursor.c)
 *   Prod      ring_refresh_limit: scan_gates (cursor, then hold), head, fence, scan_gates again (cursor.c), claim
 *   Mem       drains the member's store buffer
 *
 * Checked: no unit that the member looks at in the ring is overwritten, and nothing at or above a cursor that gates for good.
 * Abstracted: one member, records of one unit; all that is published is durable; who is behind reads elsewhere, whatever the
 *   ring does.
 * Bounds: CAP units, MAXT last offset, NP producers, SLACK how far head is announced beyond what is needed.
 * Negative switches: NO_FENCE (between hold and head), NO_HEAD (joins without a look at head), NO_CHECK (gates without a look
 *   at head), HOLD_FIRST (the hold leaves before the cursor is known to gate). */
#ifndef CAP
#define CAP 2
#endif
#ifndef MAXT
#define MAXT 5
#endif
#ifndef NP
#define NP 2
#endif
#ifndef SLACK
#define SLACK 1
#endif
#define NONE 255
byte tail, head;
bool gates; byte co;               /* the cursor, one word */
byte hold=NONE, hb0, hb1, hbn;     /* store buffer: up to two stores to the hold */
bool looks, settled; byte lo;      /* ghosts */

inline hstore(v) { atomic { hbn<2 -> if :: hbn==0 -> hb0=v :: hbn==1 -> hb1=v fi; hbn++ } }
proctype Mem() {
end_m: do :: atomic { hbn>0 -> hold=hb0; hb0=hb1; hb1=0; hbn-- } od
}

proctype Member() {
  byte pos; bool behind=1, tried;
end_own:
  do
  :: atomic { behind && pos<tail -> pos++ }                          /* from the journal */
  :: behind ->                                                       /* catch_up */
     hstore(pos);
#ifndef NO_FENCE
     (hbn==0);
#endif
#ifdef NO_HEAD
     behind=0
#else
     if :: atomic { head<=pos -> behind=0 } :: atomic { head>pos -> skip }; hstore(NONE) fi
#endif
  :: !behind && pos<tail -> atomic { looks=1; lo=pos };              /* poll: a view */
     atomic { looks=0; pos++ };                                      /* the next poll gives it up */
     hstore(pos);
     if
     :: skip                                                         /* nothing is committed */
     :: settled -> atomic { (hbn==0); co=pos }
     :: !settled ->
#ifdef HOLD_FIRST
        hstore(pos+1);
#endif
        atomic { (hbn==0); co=pos; gates=1 };                        /* a compare-and-swap drains the buffer */
#ifdef NO_CHECK
        settled=1
#else
        if :: atomic { head<=pos -> settled=1 } :: atomic { head>pos -> gates=0 } fi
#endif
     fi
  od
}

#define MIN(v) if :: (v)<m -> m=(v) :: else fi
/* A hold below the ring is none. */
#define SCAN atomic { if :: gates -> MIN(co) :: else fi }; atomic { if :: hold+CAP>=t -> MIN(hold) :: else fi }
proctype Prod() {
  byte lim=CAP, m, t, w;
  do
  :: tail==MAXT -> break
  :: atomic { tail<MAXT && tail<lim -> assert(!(looks && tail>=lo+CAP)); assert(!(settled && tail>=co+CAP)); tail++ }
  :: tail<MAXT && tail>=lim ->
end_room: atomic { !(gates && co+CAP<=tail) && !(hold!=NONE && hold+CAP<=tail) -> t=tail; m=t };
     SCAN;
     atomic { w=(t+1+SLACK>CAP -> t+1+SLACK-CAP : 0); w=(w>head -> w : head); MIN(w); if :: head<m -> head=m :: else fi };
     SCAN;
     atomic { lim=m+CAP; m=0; t=0; w=0 }
  od
}
init { atomic { run Member(); run Mem(); byte i; for (i : 1 .. NP) { run Prod() } } }
