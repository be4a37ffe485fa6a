/* attach.pml: a group joins while producers raise `head` and move their limit.  x86-TSO store buffers are explicit.
 *
 * What C it stands for:
 *   Group     cursor_attach (libshmq/cursor.c), called by a consumer that joins or seeks back; then it reads
 *   Prod      ring_refresh_limit (libshmq/cursor.c), with the claim that follows (ring_claim_multi, one step: claim.pml)
 *   enter     the supervisor enters the group in S, raises gate_epoch, then answers the join (a system call: its stores
 *             have drained when the group attaches)
 *   Mem       drains the store buffers at any time
 *
 * Checked: from the moment cursor_attach returns, no unit at or above the group's position is overwritten; no unit of
 * an unstamped claim is ever overwritten, gates or none.
 * Abstracted: claims of one unit; the slot's `at` is visible at once (the CAS of tail drains it) and cleared with the
 * stamp; generation and gates bit: NONE is "does not gate"; resolve (claim.pml), holds (hold.pml), waiting (blocked
 * producers sleep until there may be room).  Stores of shmqd for a dead or deleted group are one step.
 *
 * Bounds: CAP units, MAXT last offset, SLACK the capacity / 8 that head may rise beyond the need.
 * Modes:  FIRST    group 0 gates from the start (else: nobody gates at first)
 *         REATT    group 0 is deleted once and its place in the gate table used again
 * Negative switches: NO_FENCE_G, NO_FENCE_P, PLAIN_HEAD, NO_RESCAN, RESCAN_IF_RAISED, NO_TAIL, NO_EPOCH, EPOCH_LATE,
 *         EPOCH_FIRST, NO_AT (unstamped claims never gate), AT_ONLY_FREE (only while no cursor gates). */
#ifndef CAP
#define CAP 2
#endif
#ifndef MAXT
#define MAXT 4
#endif
#ifndef SLACK
#define SLACK 0
#endif
#define G 2
#define NONE 255

byte tail, head, cur[G]=NONE;      /* shared memory */
byte at[2];                        /* slot: claimed offset + 1, 0 for none */
bool entered[G]; byte epoch;       /* S: gate table, gate_epoch */
byte gb0[G], gb1[G], gbn[G];       /* store buffer of a group: up to two stores to its cursor */
byte pb[2]; bool pbn[2];           /* store buffer of a producer: one store to head (PLAIN_HEAD) */
bool attd[G]; byte gpos[G];        /* ghosts: attached, position */

inline gstore(g,v) { atomic { gbn[g]<2 -> if :: gbn[g]==0 -> gb0[g]=v :: gbn[g]==1 -> gb1[g]=v fi; gbn[g]++ } }

proctype Mem() {
end_m:
  do
  :: atomic { gbn[0]>0 -> cur[0]=gb0[0]; gb0[0]=gb1[0]; gb1[0]=0; gbn[0]-- }
  :: atomic { gbn[1]>0 -> cur[1]=gb0[1]; gb0[1]=gb1[1]; gb1[1]=0; gbn[1]-- }
#ifdef PLAIN_HEAD
  :: atomic { pbn[0] -> head=pb[0]; pbn[0]=0; pb[0]=0 }
  :: atomic { pbn[1] -> head=pb[1]; pbn[1]=0; pb[1]=0 }
#endif
  od
}

#define UNSTAMPED(o) (at[0]==(o)+1 || at[1]==(o)+1)

proctype Group(byte g; bool first) {
  byte x, h; bool again_;
  if
  :: first -> goto reading                        /* attached at 0 from the start */
  :: else
  fi;
enter:
#ifdef EPOCH_LATE
  skip;                                           /* negative: the group attaches first */
#else
  atomic { entered[g]=1 }; atomic { epoch++ };
#endif
attach:
  atomic { if :: x=head :: x=tail :: (head<tail) -> x=head+1 fi };   /* earliest, latest, an offset in between */
again:
  gstore(g,x);
#ifndef NO_FENCE_G
  (gbn[g]==0);
#endif
  atomic { h=head; if :: h>x -> x=h; h=0; goto again :: else -> h=0 fi;
           gpos[g]=x; attd[g]=1; assert(tail<=x+CAP); x=0 };
#ifdef EPOCH_LATE
  atomic { entered[g]=1 }; atomic { epoch++ };
#endif
reading:
end_reading:
  do                                              /* reads and commits: the cursor only rises */
  :: atomic { gpos[g]<tail && !UNSTAMPED(gpos[g]) && gbn[g]<2 -> gpos[g]++;
       if :: gbn[g]==0 -> gb0[g]=gpos[g] :: gbn[g]==1 -> gb1[g]=gpos[g] fi; gbn[g]++ }
#ifdef REATT
  :: atomic { !again_ && g==0 -> attd[g]=0; gpos[g]=0; again_=1 };   /* dies or is deleted */
     (gbn[g]==0);
     atomic { cur[g]=NONE; entered[g]=0 };        /* shmqd: its place in the table is free */
     goto enter
#endif
  od
}

#define LAPS(g,t) (attd[g] && (t)>=gpos[g]+CAP)
#define LAPC(q,t) (at[q]!=0 && (t)>=at[q]-1+CAP)
#define CHECK(t) assert(!LAPS(0,t) && !LAPS(1,t) && !LAPC(0,t) && !LAPC(1,t))
#define MIN(v) if :: (v)<m -> m=(v) :: else fi
#define SCAN(g) atomic { if :: (known&(1<<g)) && cur[g]!=NONE -> gating=1; MIN(cur[g]) :: else fi }
#define GATED(x) ((cur[0]!=NONE && cur[0]+CAP<(x)) || (cur[1]!=NONE && cur[1]+CAP<(x)))
#define CLAIMED(x) ((at[0]!=0 && at[0]-1+CAP<(x)) || (at[1]!=0 && at[1]-1+CAP<(x)))

proctype Prod(byte p) {
  byte t, lim=CAP, m, h, e, known; bool gating, raised;
  known=1;
claim:
  atomic { t=tail; if :: t>=MAXT -> goto finished :: t<MAXT && t>=lim -> goto refresh :: else fi };
  atomic { if :: tail==t -> (!pbn[p]); CHECK(t); at[p]=t+1; tail=t+1; t=0 :: tail!=t -> t=0; goto claim fi };
  atomic { at[p]=0; goto claim };                 /* stamp and clear */

refresh:
#ifdef NO_TAIL
  m=NONE;
#else
  m=t;                                            /* T: tail as loaded above, a boundary */
#endif
  SCAN(0); SCAN(1);
  /* every slot's at, after T: an unstamped claim gates as a cursor does */
#if defined(NO_AT)
  skip;
#elif defined(AT_ONLY_FREE)
  if :: !gating -> atomic { if :: at[1-p]!=0 -> MIN(at[1-p]-1) :: else fi } :: else fi;
#else
  atomic { if :: at[1-p]!=0 -> MIN(at[1-p]-1) :: else fi };
#endif
#ifdef EPOCH_FIRST                                /* negative: the table is looked at before head is raised */
  atomic { known=(entered[0] -> 1 : 0)|(entered[1] -> 2 : 0) };
#endif
  /* head rises no further than needed: max(head, t + need + slack - CAP); saturating, offsets are unsigned */
  atomic { h=head; e=(t+1+SLACK>CAP -> t+1+SLACK-CAP : 0);
           if :: e<h -> e=h :: else fi; MIN(e); e=0 };
#ifndef PLAIN_HEAD
raise:
  if
  :: h<m -> atomic { if :: head==h -> head=m; raised=1 :: else -> h=head; goto raise fi }
  :: else
  fi;
#else
  if :: h<m -> atomic { (!pbn[p]); pb[p]=m; pbn[p]=1; raised=1 } :: else fi;
#endif
  h=0;
#ifndef NO_FENCE_P
  (!pbn[p]);
#endif
#if !defined(NO_EPOCH) && !defined(EPOCH_FIRST)
  /* gate_epoch changed: fetch the new group's segment first (mapping is private, the table is read at once) */
  atomic { known=(entered[0] -> 1 : 0)|(entered[1] -> 2 : 0) };
#endif
#ifdef RESCAN_IF_RAISED
  if :: !raised -> goto limit :: else fi;
#endif
#ifndef NO_RESCAN
  SCAN(0); SCAN(1);
#endif
limit:
  atomic { lim=m+CAP; m=0; gating=0; raised=0; if :: t<lim -> t=0; goto claim :: else fi };
  atomic { (tail!=t || (!GATED(t+1) && !CLAIMED(t+1))) -> t=0; goto claim };   /* wait for room */

finished: atomic { lim=0; known=0 };
end_p: skip
}

proctype Mon() { end_mon: atomic { timeout -> assert(tail==MAXT) } }

init { atomic {
#ifdef FIRST
  cur[0]=0; attd[0]=1; entered[0]=1; run Group(0,1);
#else
  run Group(0,0);
#endif
  run Prod(0); run Prod(1); run Group(1,0); run Mem(); run Mon() } }
