/* history.pml: a group of a durable topic that stands below its ring: journal, ring, death, hand-over.  TSO store buffers.
 *
 * What C it stands for:
 *   Member    take_partition with hold_and_confirm, is_behind, take_behind; assignment_join_ring, assignment_commit
 *             (libshmq/assignment.c); advance, catch_up (consumer_history.c); give_up_views, take_views (consumer.c),
 *             consumer_give_up_history (consumer_journaled.c); cursor_move, cursor_commit_gating (cursor.c)
 *   Prod      ring_refresh_limit: min(tail, durable), scan_gates, head, fence, scan_gates again (cursor.c), claim
 *   Flusher   flush_raise (daemon/flush_sync.c): what is below `durable` is in the journal
 *   Coord     group_hand_over to the other member, whose owner died or lives on; clears the hold of a dead one
 *   Mem       drains the store buffers
 * Members die at every step (D), and stop for ever while they are behind.
 *
 * Checked: no unit that a living member looks at in the ring is overwritten, and none that is not durable; each
 * owner gets every record from the cursor on, in order and none twice (one that is in neither place would leave it waiting for
 * ever); nothing is committed that was not delivered; producers never wait for a member that is behind.
 * Abstracted: records of one unit, stamped with their claim (claim.pml); where catch_up tries (anywhere here); files; damage;
 *   generations do not wrap.
 * join.pml goes further in the switch alone: more producers and offsets.
 * Bounds: CAP units, MAXT last offset, NP producers, SLACK how far head is announced beyond what is needed, ND deaths, NH
 *   hand-overs from one that lives.
 * Negative switches: NO_FENCE (between hold and head), HEAD_FIRST (head, then the hold), GATES_FIRST (the cursor gates before
 *   the member is in the ring), CLEAR_FIRST (the hold is taken away, then comes the commit, then the hold again), READ_ABOVE
 *   (the journal, above durable), NO_DURABLE (producers go by tail), MOVE_UP (joins at head instead of not at all), TRUST_CURSOR
 *   (an owner takes over in the ring where the cursor does not gate, without a look at head), KEEP_GATE (an owner that is
 *   behind leaves the gates bit), COMMIT_AHEAD (commits what comes next).  NO_CHECK (gates without a look at head) does no harm
 *   here: the next owner looks at head itself; join.pml has it. */
#ifndef CAP
#define CAP 2
#endif
#ifndef MAXT
#define MAXT 4
#endif
#ifndef NP
#define NP 1
#endif
#ifndef SLACK
#define SLACK 1
#endif
#ifndef ND
#define ND 1
#endif
#ifndef NH
#define NH 1
#endif
#define NONE 255
byte tail, head, durable;
byte cg, co; bool gates;           /* the cursor, one word */
byte am, ag;                       /* assign */
byte hold[2]=NONE;
byte hb0[2], hb1[2], hbn[2];       /* store buffer: up to two stores to the hold */
bool alive[2]=1;
byte pos[2];                       /* ghosts from here on; a member's own, but for Mon */
bool looks[2]; byte lo[2]; bool stops[2];
byte seen, nd, nh;                 /* seen: a bit for each offset that was delivered */

inline hstore(m,v) { atomic { hbn[m]<2 -> if :: hbn[m]==0 -> hb0[m]=v :: hbn[m]==1 -> hb1[m]=v fi; hbn[m]++ } }
proctype Mem() {
end_m: do
  :: atomic { hbn[0]>0 -> hold[0]=hb0[0]; hb0[0]=hb1[0]; hb1[0]=0; hbn[0]-- }
  :: atomic { hbn[1]>0 -> hold[1]=hb0[1]; hb0[1]=hb1[1]; hb1[1]=0; hbn[1]-- }
  od
}

#define D(x) atomic { if :: x :: nd<ND -> nd++; goto die fi }
#define MINE (cg==g && co==last && gates==mg)
#define DELIVER atomic { assert(pos[m]==next); seen=seen|(1<<pos[m]); pos[m]++; next++ }
#ifdef COMMIT_AHEAD
#define TO (pos[m]<tail -> pos[m]+1 : pos[m])
#else
#define TO pos[m]
#endif
/* A compare-and-swap drains the buffer. */
#define CAS(off,gat) atomic { (hbn[m]==0); if :: MINE -> co=off; gates=gat; last=co; mg=gates; \
     assert((seen&((1<<co)-1))==(1<<co)-1) :: else -> goto lost fi }
#define LOOK_BACK D( ok=(head<=pos[m]) )

proctype Member(byte m) {
  byte g=NONE, last, next; bool mg, ok, behind, tried;
end_out:
  atomic { alive[m] && am==m && ag!=g -> g=ag };                     /* take_partition */
  D( ok=(cg==g); last=co; mg=gates; pos[m]=co; next=co );
  if :: !ok -> goto lost :: else fi;                                 /* the hand-over goes on: another event comes */
  D( hstore(m,pos[m]) );
  (hbn[m]==0);
  D( ok=(am==m && ag==g) );
  D( ok=(ok && MINE) );
  if :: !ok -> goto lost :: else fi;
#ifdef TRUST_CURSOR
  D( behind=(tail>pos[m]+CAP) );
#else
  D( behind=(head>pos[m] || tail>pos[m]+CAP) );
#endif
  if
  :: behind -> D( hstore(m,NONE) );
#ifndef KEEP_GATE
     if :: mg -> D( CAS(last,0) ) :: else fi
#endif
  :: else
  fi;
end_own:
  do
#ifdef READ_ABOVE
  :: atomic { behind && pos[m]<tail -> assert(pos[m]<durable); DELIVER; tried=0 }
#else
  :: atomic { behind && pos[m]<durable -> DELIVER; tried=0 }         /* from the journal: no memory is looked at */
#endif
  :: atomic { behind && pos[m]!=last -> D( CAS(TO,mg) ) }            /* consumer_give_up_history */
  :: atomic { behind -> stops[m]=1; goto stop }
  :: behind && !tried ->                                             /* catch_up */
#ifdef GATES_FIRST
     if :: !mg -> D( CAS(last,1) ) :: else fi;
#endif
#ifdef HEAD_FIRST
     LOOK_BACK;
     D( hstore(m,pos[m]) );
     (hbn[m]==0);
#else
     D( hstore(m,pos[m]) );
#ifndef NO_FENCE
     (hbn[m]==0);
#endif
     LOOK_BACK;
#endif
#ifdef MOVE_UP
     if :: !ok -> D( pos[m]=head; ok=1 ) :: else fi;
#endif
     if
     :: ok -> behind=0
     :: else -> D( hstore(m,NONE) ); tried=1                         /* head <= durable: there is more in the journal */
     fi
  :: !behind && pos[m]<tail && tail<=pos[m]+CAP ->                   /* poll: its stamp stands in the ring */
     D( looks[m]=1; lo[m]=pos[m]; DELIVER; if :: pos[m]<tail && tail<=pos[m]+CAP -> DELIVER :: skip fi );
     D( looks[m]=0 );                                                /* the next poll gives it up */
     D( hstore(m,pos[m]) )
  :: atomic { !behind && pos[m]!=last -> skip };                     /* commits now, or later */
#ifdef CLEAR_FIRST
     D( hstore(m,NONE) );
#endif
     if
     :: mg -> D( CAS(TO,1) )
     :: !mg -> D( CAS(TO,1) );                                       /* cursor_commit_gating */
#ifndef NO_CHECK
        LOOK_BACK;
        if :: !ok -> D( CAS(last,0) ) :: else fi
#endif
     fi
#ifdef CLEAR_FIRST
     ; D( hstore(m,pos[m]) )
#endif
  :: atomic { ag!=g -> goto lost }                                   /* refresh_partition: not mine any more */
  od;
lost:
  D( hstore(m,NONE) );
  atomic { pos[m]=0; last=0; next=0; ok=0; mg=0; behind=0; tried=0; goto end_out };
stop:
end_s: atomic { nd<ND -> nd++; stops[m]=0; goto die };
die: atomic { alive[m]=0; looks[m]=0; lo[m]=0; pos[m]=0; last=0; next=0; ok=0; mg=0; behind=0; tried=0; g=0 };
end_d: false
}

proctype Coord() {
end_c: do
  :: atomic { !alive[0] && !alive[1] -> break }
  :: atomic { !alive[am] && alive[1-am] -> skip };
     atomic { (hbn[am]==0); hold[am]=NONE };                         /* clear_member */
     cg=cg+1;                                                        /* 1 fence */
     atomic { am=1-am; ag=cg }                                       /* 2 assign */
  :: atomic { nh<NH && alive[am] && alive[1-am] -> nh++ };
     cg=cg+1;
     atomic { am=1-am; ag=cg }
  od
}

proctype Flusher() {
end_f: do :: atomic { durable<tail -> durable++ } od
}

#define MIN(v) if :: (v)<n -> n=(v) :: else fi
/* A hold below the ring is none; who has no room asks whether its owner lives. */
#define HOLD(m) if :: hold[m]+CAP>=t && alive[m] -> MIN(hold[m]) :: else fi
#define SCAN atomic { if :: gates -> MIN(co) :: else fi }; atomic { HOLD(0) }; atomic { HOLD(1) }
#define SAFE(m) assert(!(alive[m] && looks[m] && tail>=lo[m]+CAP))
#define BARS(m) (alive[m] && hold[m]!=NONE && hold[m]+CAP==tail)
proctype Prod() {
  byte lim=CAP, n, t, w;
  do
  :: tail==MAXT -> break
  :: atomic { tail<MAXT && tail<lim -> SAFE(0); SAFE(1); assert(tail<durable+CAP); tail++ }
  :: tail<MAXT && tail>=lim ->
end_room: atomic { !(gates && co+CAP<=tail) && !BARS(0) && !BARS(1) && durable+CAP>tail ->
#ifdef NO_DURABLE
       t=tail; n=t
#else
       t=tail; n=(t<durable -> t : durable)
#endif
     };
     SCAN;
     atomic { w=(t+1+SLACK>CAP -> t+1+SLACK-CAP : 0); w=(w>head -> w : head); MIN(w); if :: head<n -> head=n :: else fi };
     SCAN;
     atomic { lim=n+CAP; n=0; t=0; w=0 }
  od
}

/* Nobody can move any more. */
proctype Mon() {
end_mon: atomic { timeout -> if :: alive[am] -> assert(tail==MAXT); assert(stops[am] || pos[am]==MAXT) :: else fi }
}
init { atomic { run Member(0); run Member(1); run Mem(); run Coord(); run Flusher(); run Mon();
  byte i; for (i : 1 .. NP) { run Prod() } } }
