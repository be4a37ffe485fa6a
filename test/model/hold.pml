/* hold.pml: what a member looks at in place is not overwritten, whoever owns the partition by now.  TSO store buffers.
 *
 * What C it stands for:
 *   Member    take_partition with hold_and_confirm, release_hold, assignment_commit (libshmq/assignment.c) and
 *             give_up_views (libshmq/consumer.c): poll, views, the next poll
 *   Prod      ring_refresh_limit: scan_gates (cursors, then holds), fence, scan_gates again (libshmq/cursor.c), claim
 *   Coord     group_hand_over to the other member although the first one lives; clears the hold of a dead one
 *   Mem       drains the store buffers
 *
 * Checked: no unit that a living member may be looking at is overwritten.
 * Abstracted: records of one unit, batches of one; head (attach.pml): its fence stands here; generations do not wrap.
 * Bounds: CAP units, MAXT last offset, NH hand-overs.
 * Negative switches: NO_HOLD, NO_RECHECK, NO_FENCE (between hold and second look), HOLDS_FIRST (producer,
 *   in a single scan), RAISE_EARLY (the hold leaves what is still looked at). */
#ifndef CAP
#define CAP 2
#endif
#ifndef MAXT
#define MAXT 4
#endif
#ifndef NH
#define NH 2
#endif
#define NONE 255
byte tail;
byte cg, co;                       /* cursor: generation, offset; gates */
byte am, ag;                       /* assign */
byte hold[2]=NONE;
byte hb0[2], hb1[2], hbn[2];       /* store buffer: up to two stores to the hold */
bool alive[2]=1; bool looks[2]; byte lo[2];   /* ghosts */
byte nh;

inline hstore(m,v) { atomic { hbn[m]<2 -> if :: hbn[m]==0 -> hb0[m]=v :: hbn[m]==1 -> hb1[m]=v fi; hbn[m]++ } }
proctype Mem() {
end_m: do
  :: atomic { hbn[0]>0 -> hold[0]=hb0[0]; hb0[0]=hb1[0]; hb1[0]=0; hbn[0]-- }
  :: atomic { hbn[1]>0 -> hold[1]=hb0[1]; hb0[1]=hb1[1]; hb1[1]=0; hbn[1]-- }
  od
}

proctype Member(byte m) {
  byte g=NONE, pos, last; bool ok;
end_out:
  atomic { alive[m] && am==m && ag!=g -> g=ag };
  atomic { ok=(cg==g); last=co; pos=co };
  if :: !ok -> goto end_out :: else fi;
#ifndef NO_HOLD
  hstore(m,pos);
#endif
#ifndef NO_FENCE
  (hbn[m]==0);
#endif
#ifndef NO_RECHECK
  atomic { ok=(am==m && ag==g) };
  atomic { ok=(ok && cg==g && co==last) };
  if :: !ok -> goto lost :: else fi;
#endif
end_own:
  do
  :: atomic { pos<tail -> looks[m]=1; lo[m]=pos };                   /* poll: a view */
#ifdef RAISE_EARLY
     hstore(m,pos+1);
#endif
     if :: skip :: goto die fi;
     atomic { looks[m]=0; pos++ };                                   /* next poll: the view is given up */
#if !defined(NO_HOLD) && !defined(RAISE_EARLY)
     hstore(m,pos);
#endif
     if
     :: skip                                                         /* cursors are committed in batches */
     :: atomic { (hbn[m]==0); if :: cg==g && co==last -> co=pos; last=pos :: else -> goto lost fi }
     fi
  :: atomic { last!=pos && (hbn[m]==0) -> if :: cg==g && co==last -> co=pos; last=pos :: else -> goto lost fi }
  :: atomic { ag!=g -> goto lost }                                   /* refresh_partition: not mine any more */
  od;
lost:
#ifndef NO_HOLD
  hstore(m,NONE);
#endif
  atomic { pos=0; last=0; ok=0; goto end_out };
die: atomic { alive[m]=0; looks[m]=0; pos=0; last=0; ok=0; g=0 };
  (hbn[m]==0); hold[m]=NONE;                                         /* clear_member */
end_d: false
}

proctype Coord() {
end_c: do
  :: atomic { nh<NH || !alive[am] -> nh++ ; if :: !alive[0] && !alive[1] -> break :: else fi };
     cg=cg+1;                                                        /* 1 fence */
     atomic { am=(alive[1-am] -> 1-am : am); ag=cg }                 /* 2 assign */
  od
}

#define MIN(v) if :: (v)<m -> m=(v) :: else fi
#define CURSOR atomic { MIN(co) }
#define HOLDS  atomic { MIN(hold[0]) }; atomic { MIN(hold[1]) }
#ifdef HOLDS_FIRST
#define SCAN HOLDS; CURSOR         /* and one scan: two of them hide it */
#else
#define SCAN CURSOR; HOLDS; CURSOR; HOLDS
#endif
#define SEEN(m,t) (alive[m] && looks[m] && (t)>=lo[m]+CAP)
proctype Prod() {
  byte lim=CAP, m;
  do
  :: tail==MAXT -> break
  :: tail<MAXT && tail<lim -> atomic { assert(!SEEN(0,tail) && !SEEN(1,tail)); tail++ }
  :: tail<MAXT && tail>=lim ->
end_room: (co+CAP>tail);
     m=tail;
     SCAN;
     atomic { lim=m+CAP; m=0 }
  od
}
init { atomic { run Member(0); run Member(1); run Coord(); run Prod(); run Mem() } }
